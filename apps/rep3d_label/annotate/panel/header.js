// The line on top: the commands of a case, what runs, what was said, how the connection is.
import { address } from "../../api.js";
import { fill, h } from "../../dom.js";
import { commandButton } from "./parts.js";

const STATES = { connecting: "Connecting", ready: "Ready", lost: "Server not reachable, trying again", signed_out: "Logged out", other_version: "Reload the page" };

export class Header {
  #host;
  #parts = {};

  /** @param actions nextSample, openList, autoSegment, submit, cancel, help. */
  constructor(host, actions) {
    this.#host = host;
    const part = (name, element) => (this.#parts[name] = element);
    host.replaceChildren(
      h("div", { class: "bar" },
        h("a", { class: "home", href: "../", title: "To the dashboard" }, "Rep3D Label"), part("folder", h("span", { class: "folder" })),
        h("div", { class: "commands", role: "group", "aria-label": "Commands" },
          commandButton("next_sample", "Next sample", actions.nextSample, { "data-words": "Fetch the case that would teach the model most" }),
          commandButton("open_case", "Cases", actions.openList, { "data-words": "Open a certain case" }),
          commandButton("auto_segment", "Auto-segment", actions.autoSegment, { "data-words": "Have the model segment this case; what you drew is one Undo away" }),
          commandButton("submit", "Submit", actions.submit, { class: "primary", "data-words": "Send the label to the server" })),
        h("span", { class: "spring" }),
        part("state", h("span", { class: "state", role: "status" })), h("button", { type: "button", class: "quiet help", onclick: actions.help }, "How it works"),
        part("logout", h("form", { method: "post", action: address("rep3d/logout"), hidden: true }, part("user", h("span", { class: "muted" })), h("button", { class: "quiet" }, "Log out")))),
      part("trouble", h("div", { class: "trouble", role: "alert", hidden: true })),
      h("div", { class: "said" },
        part("activity", h("div", { class: "activity", hidden: true }, part("doing", h("span", { role: "status" })), part("bar", h("progress", { max: 1 })),
          commandButton("cancel", "Cancel", actions.cancel, { class: "quiet" }))),
        part("message", h("p", { class: "message", role: "status", "aria-live": "polite", hidden: true }))),
    );
  }

  show(view) {
    const { folder, state, logout, user, activity, doing, bar, message, trouble } = this.#parts;
    folder.textContent = view.server?.folder ?? "";
    document.title = [view.case && `${view.case.edited ? "* " : ""}${view.case.id}`, view.server?.folder, "Rep3D Label"].filter(Boolean).join(" – ");
    state.textContent = STATES[view.connection];
    state.className = `state ${view.connection}`;
    logout.hidden = !view.user;
    user.textContent = view.user ?? "";
    activity.hidden = !view.activity;
    if (view.activity) {
      doing.textContent = view.activity.text;
      if (view.activity.progress === null) bar.removeAttribute("value");
      else bar.value = view.activity.progress;
    }
    message.hidden = !view.message || Boolean(view.activity);
    message.className = `message ${view.message?.level ?? ""}`;
    message.textContent = view.message?.text ?? "";
    const troubles = [...TROUBLES[view.connection]?.(view) ?? [], ...view.problems.map((words) => [words])];
    trouble.hidden = !troubles.length;
    fill(trouble, troubles.map(([words]) => words), () => troubles.map((words) => h("p", {}, words)));
  }
}

const TROUBLES = {
  lost: ({ why, case: found }) => [[`${why ?? "The server cannot be reached"}. ${found ? "You can go on drawing: your edits are kept in this browser. " : ""}It is asked again by itself.`]],
  signed_out: () => [["Your login has ended. Your edits are kept in this browser. ", h("a", { href: address("rep3d/login?to=annotate/"), target: "_blank", rel: "noopener" }, "Log in in a new tab"), ", then come back here and go on."]],
  other_version: () => [["Another version of the server, another folder or another person is here now. Your edits are kept in this browser. ",
    h("button", { type: "button", class: "quiet", onclick: () => location.reload() }, "Reload the page")]],
};
