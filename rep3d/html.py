"""The look that our pages share: the demo's report and ``rep3d explain``. For light and dark, paper and phones."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["CSS", "GREY", "LINE_COLOURS", "table"]

LINE_COLOURS = ("#0f9d8f", "#e07a1f", "#8b6fe8", "#d6457f", "#6b9e1f", "#3b82d6")
GREY = "#8a93a3"  # readable on white and on black

CSS = """
:root{color-scheme:light dark;--bg:#f8f7f4;--card:#fff;--ink:#1c2431;--muted:#626b7a;--line:#e3e0d9;--accent:#0b7f76;
--bar:#cfeae6}
@media screen and (prefers-color-scheme:dark){:root{--bg:#11141a;--card:#191e27;--ink:#e7eaf0;--muted:#98a2b3;
--line:#2b323e;--accent:#4fd1c1;--bar:#1d4a47}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:1rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Liberation Sans",sans-serif}
main{max-width:64rem;margin:0 auto;padding:clamp(1.25rem,5vw,4rem) clamp(1rem,4vw,2rem)}
h1{font-size:clamp(1.7rem,5vw,2.6rem);line-height:1.15;letter-spacing:-.02em;margin:.2rem 0 .8rem;text-wrap:balance}
h2{font-size:1.25rem;letter-spacing:-.01em;margin:3rem 0 .6rem}
h3{font-size:1rem;margin:0}
p{margin:.4rem 0 1rem;max-width:46rem;text-wrap:pretty}
small,.muted{color:var(--muted)}
.eyebrow{color:var(--accent);font-weight:600;font-size:.85rem;margin:0}
.lead{font-size:1.1rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;margin:1.6rem 0 0;padding:0}
.tiles div,figure,.scroll,article{background:var(--card);border:1px solid var(--line);border-radius:.8rem}
.tiles div{padding:.9rem 1.1rem}
.tiles dt{color:var(--muted);font-size:.85rem}
.tiles div{display:flex;flex-direction:column;justify-content:space-between}
.tiles dd{margin:0;font-size:1.7rem;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tiles .first dd{color:var(--accent)}
figure{margin:0;padding:.6rem}
figure img{display:block;width:100%;height:auto}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.5rem .75rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tbody tr:last-child>*{border-bottom:0}
thead th{font-size:.85em;color:var(--muted);font-weight:600;vertical-align:bottom}
tbody th{font-weight:600;overflow-wrap:anywhere}
.n{white-space:nowrap}
.names{display:block;font-size:.8em;line-height:1.35;min-width:9rem;max-width:16rem;overflow-wrap:anywhere}
.d{background:linear-gradient(90deg,var(--bar) calc(var(--v)*100%),transparent 0) no-repeat .75rem 100%/
calc(100% - 1.5rem) .28rem}
.version{font-size:.8em;overflow-wrap:anywhere;min-width:6rem}
article{padding:1rem;margin:0 0 1rem;break-inside:avoid}
.cap{display:flex;flex-wrap:wrap;gap:.1rem 1rem;justify-content:space-between;margin-bottom:.7rem}
.planes{display:grid;grid-template-columns:repeat(3,1fr);gap:.5rem}
.planes img{display:block;width:100%;height:auto;border-radius:.4rem;background:#000}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;margin:0 0 1rem;padding:0;list-style:none;font-size:.9rem}
.legend i{display:inline-block;width:1.7rem;margin-right:.5rem;vertical-align:middle;border-top:3px solid var(--ink)}
.facts{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.3rem 1.4rem;margin:0}
.facts dt{color:var(--muted)}
.facts dd{margin:0;overflow-wrap:anywhere}
.note{border-left:3px solid var(--accent);padding-left:1rem}
@media (max-width:34rem){.planes{grid-template-columns:1fr 1fr}.planes img:first-child{grid-column:1/-1}
th,td{padding:.45rem .6rem}}
@media print{body{background:#fff;font-size:10pt}main{max-width:none;padding:0}h2{break-after:avoid;margin-top:1.5rem}
h2+p{break-after:avoid}tr,figure{break-inside:avoid}.tiles{grid-template-columns:repeat(4,1fr)}.tiles dd{font-size:14pt}
.scroll{overflow:visible}table{font-size:8pt}th,td{padding:.3rem .4rem}.n{white-space:normal}
.names,.version{min-width:0}
.planes img,.d{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""


def table(head: Iterable[str], rows: Iterable[str]) -> str:
    """A table that scrolls by itself where the page is narrower; cells and rows are HTML already."""
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
