// The page: makes its parts, and has them shown what changes.
import { address, sentence } from "../api.js";
import { $, h } from "../dom.js";
import { Drafts } from "./flow/drafts.js";
import { Learning } from "./flow/learning.js";
import { Lease } from "./flow/lease.js";
import { askQuestion } from "./flow/questions.js";
import { enabled } from "./flow/rules.js";
import { Server } from "./flow/server.js";
import { Session } from "./flow/session.js";
import { Settings } from "./flow/settings.js";
import { Tabs } from "./flow/tabs.js";
import { Transfers } from "./wire/transfers.js";
import { View } from "./flow/view.js";
import { Workflow } from "./flow/workflow.js";
import { CasePanel } from "./panel/case.js";
import { Header } from "./panel/header.js";
import { LearningPanel } from "./panel/learning.js";
import { showList } from "./panel/list.js";
import { markCommands } from "./panel/parts.js";
import { welcome } from "./panel/welcome.js";

/** The class that draws; without the viewer, or a card that can draw, the page says what is missing. */
async function stageClass() {
  try {
    const { Stage } = await import("./view/stage.js");
    return [Stage, Stage.obstacle()];
  } catch (error) {
    console.warn(error);
    const there = await fetch("niivue.js", { method: "HEAD" }).then(({ ok }) => ok, () => true);
    return [null, there ? `The page could not be loaded whole (${error.message}). Reload it; if that does not help, use another browser.`
      : "The viewer of this page is not installed on the server. On the server's computer say: python scripts/install_viewer.py, then start the server again."];
  }
}

function showObstacle(...content) {
  $("stage").replaceChildren(h("p", { class: "obstacle", role: "alert" }, content));
}

/** The page cannot be used: says why, and leads on. */
function cannot(words) {
  $("flow").replaceChildren(h("div", { class: "bar" }, h("a", { class: "home", href: "../" }, "Rep3D Label")));
  $("case").replaceChildren(h("h2", {}, "No drawing here"), h("p", { class: "hint" }, "Cases, trainings and versions are on the dashboard too, and 3D Slicer can draw with this server."));
  showObstacle(words, h("br"), h("a", { class: "onward", href: "../" }, "To the dashboard"));
}

async function begin() {
  const view = new View(), settings = new Settings(), transfers = new Transfers();
  const server = new Server(transfers, () => (view.now.user === null ? settings.name : ""));
  const lease = new Lease(server, view), session = new Session({ server, view, lease });
  const [[Stage, obstacle], who] = await Promise.all([stageClass(), session.begin()]);
  if (obstacle) {
    if (!Stage) return cannot(obstacle);
    showObstacle(obstacle);
  }
  const stage = new Stage({ stage: $("stage"), tools: $("tools"), labels: $("labels"), strip: $("strip") });
  const place = (image) => `${address("")} ${who.folder} ${image}`;
  const tabs = new Tabs(() => view.say("warning", "This case was opened in another tab of this browser, too. Each keeps its own unsent work; what is submitted last replaces what was submitted first."));
  const drafts = new Drafts({ server: address(""), ...who });
  const flow = new Workflow({ server, stage, view, lease, tabs, drafts, transfers, place, ask: askQuestion, obstacle: (shape) => Stage.obstacle(shape),
    lookAgain: () => session.refresh() });
  const learning = new Learning({ server, view, session, ask: askQuestion, refused: flow.refused });
  wire({ view, settings, stage, flow, learning, session, server });
}

function wire({ view, settings, stage, flow, learning, session, server }) {
  const autoSegment = () => flow.autoSegment(settings.uncertainty);
  const openList = () => { if (!flow.refused("open_case")) showList(() => server.cases(view.now.model?.name ?? ""), flow.openCase); };
  const help = () => welcome(view.now.user === null && settings);
  const header = new Header($("flow"), { ...flow, autoSegment, openList, help });
  const found = new CasePanel($("case"), flow, () => show());
  const more = new LearningPanel($("more"), {
    ...learning, chooseModel: (name) => { session.choose(name); stage.setEntries(view.now.model.labels); }, chooseStrategy: (strategy) => view.update({ strategy }),
  }, settings);
  const show = () => {
    for (const part of [header, found, more]) part.show(view.now);
    const reasons = enabled(view.now);
    for (const id of ["flow", "case", "more"]) markCommands($(id), reasons);
  };
  view.addEventListener("change", show);
  const COMMANDS = { next: flow.nextSample, submit: flow.submit, auto_segment: autoSegment, cases: openList, cancel: flow.cancel };
  stage.addEventListener("command", ({ detail: { name } }) => COMMANDS[name]?.());
  document.addEventListener("visibilitychange", () => { if (document.hidden) flow.hidden(); });
  addEventListener("pagehide", () => flow.gone());
  for (const again of ["pageshow", "focus"]) addEventListener(again, () => flow.shown());
  addEventListener("beforeunload", (event) => {
    flow.hidden();
    if (flow.unkept) event.preventDefault(); // the browser asks
  });
  show();
  if (!settings.seen) {
    settings.seen = true;
    help();
  }
}

begin().catch((error) => {
  console.warn(error);
  cannot(`${sentence(error.message)} Reload the page to try again.`);
});
