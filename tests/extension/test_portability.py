"""The module obeys what real Slicer needs, this machine cannot run, and no linter knows: above all PythonQt's rules.

Each rule is shown to catch what it is about.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.extension.portability import imported_modules, python_findings, qt_findings, untranslated

MODULE = Path(__file__).resolve().parents[2] / "slicer_extension" / "Rep3DLabel"
LIB = MODULE / "Rep3DLabelLib"
QT_FILES = sorted([*LIB.glob("panel/*.py"), MODULE / "Rep3DLabel.py"])
LIB_FILES = sorted(LIB.rglob("*.py"))
ALL_FILES = [*LIB_FILES, MODULE / "Rep3DLabel.py", *sorted((MODULE / "Testing").rglob("*.py"))]
BUNDLED = {"numpy", "requests", "vtk", "slicer", "qt", "ctk", "urllib3", "Rep3DLabelLib"}


def _id(path: Path) -> str:
    return str(path.relative_to(MODULE))


@pytest.mark.parametrize("path", QT_FILES, ids=_id)
def test_rules_of_pythonqt(path: Path) -> None:
    assert qt_findings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", ALL_FILES, ids=_id)
def test_runs_on_python_3_9(path: Path) -> None:
    assert python_findings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", QT_FILES, ids=_id)
def test_texts_are_translated(path: Path) -> None:
    assert untranslated(path.read_text(encoding="utf-8")) == []


def test_there_are_files_to_check() -> None:
    assert len(QT_FILES) > 10 and len(LIB_FILES) > 60


@pytest.mark.parametrize("path", ALL_FILES, ids=_id)
def test_only_what_slicer_bundles(path: Path) -> None:
    imports = set(imported_modules(path.read_text(encoding="utf-8")))
    assert imports <= set(sys.stdlib_module_names) | BUNDLED


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("keywords", "qt.QPushButton(text='a')"),
        ("keywords", "qt.QTimer.singleShot(msec=5)"),
        ("connect", "button.connect('clicked(bool)', lambda: f())"),
        ("connect", "button.connect('clicked(bool)', partial(f, 1))"),
        ("connect", "button.connect('clicked', self.f)"),
        ("connect", "button.clicked.connect(self.f)"),
        ("waits", "box.exec_()"),
        ("waits", "dialog.exec()"),
        ("waits", "qt.QMessageBox.question(None, 'a', 'b')"),
        ("waits", "time.sleep(1)"),
        ("waits", "slicer.app.processEvents()"),
        ("property", "label.text()"),
        ("property", "box.isChecked()"),
        ("property", "combo.currentIndex()"),
        ("enum", "int(qt.Qt.Checked)"),
        ("flag", "button.setEnabled(None)"),
        ("flag", "button.setEnabled(a and b)"),
        ("attribute", "self.ui.button.note = 1"),
        ("arguments", "def onClick(self, *args): pass"),
        ("threads", "qt.QThread()"),
        ("event", "event.type() == qt.QEvent.ShortcutOverride"),
    ],
)
def test_a_broken_rule_is_found(rule: str, code: str) -> None:
    assert rule in [finding.rule for finding in qt_findings(code)]


@pytest.mark.parametrize(
    "code",
    [
        "button.connect('clicked(bool)', self.clicked)",
        "button.setEnabled(bool(a and b))",
        "button.setEnabled(not a and b == c)",
        "self.ui.section.collapsed = True",
        "value = bar.value",
        "workflow.connect(url, key, True)",
    ],
)
def test_good_code_is_left_alone(code: str) -> None:
    assert qt_findings(code) == []


@pytest.mark.parametrize(
    "code",
    [
        "A = str | None",
        "isinstance(a, int | str)",
        "isinstance(a, A | B)",
        "zip(a, b, strict=True)",
        "@dataclass(slots=True)\nclass A: pass",
        "@dataclass(kw_only=True)\nclass A: pass",
    ],
)
def test_what_is_too_new_is_found(code: str) -> None:
    assert python_findings(code)


def test_new_annotations_are_fine_where_they_are_not_evaluated() -> None:
    assert python_findings("def f(a: int | None) -> str | None: pass") == []


def test_an_untranslated_text_is_found() -> None:
    assert untranslated("label.setText('Ready')") and untranslated("label.setText(f'{n} cases')")
    assert not untranslated("label.setText(tr('Ready'))") and not untranslated("label.setText(f'{n} %')")


def test_texts_reach_the_translator_whole() -> None:
    """`tr` gets a literal, or nobody can translate it."""
    for path in LIB_FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tr":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
