// Keys, and the part of the page that changed: the forms of the page work without this.

const ONE = /^[1-9a-i]$/;
const COMMANDS = new Set(["t", "x", "s", "u"]);
const useKeys = document.getElementById("use-keys");
document.getElementById("switch").hidden = false;
let last = Promise.resolve();

/** Keys are sent one after another, so that a quick hand loses none; `keys` is asked when its turn has come. */
function press(keys) {
  last = last.then(() => send(keys()));
}

/** Send keys with the turn they belong to, and show what came of them. */
async function send(keys) {
  try {
    const turn = document.querySelector("input[name=turn]").value;
    const answer = await fetch("press", {
      method: "POST",
      headers: { "x-matura-part": "1" },
      body: new URLSearchParams({ turn, keys }),
    });
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    tell("The program in the terminal does not answer. What was saved is safe; start it again and open its new address.");
  }
}

/** Exchange the part of the page that changes; focus goes where the next key belongs. */
function show(page) {
  const main = page.getElementById("main");
  if (!main) return tell("The answer was no page. Reload this one.");
  const before = document.querySelector("#asked + .prompt")?.textContent;
  document.getElementById("main").replaceWith(document.adoptNode(main));
  document.getElementById("keys").replaceWith(document.adoptNode(page.getElementById("keys")));
  const notice = main.querySelector(".notice");
  const said = notice.textContent;
  notice.textContent = ""; // a live region speaks when its text changes after it is there
  setTimeout(() => { notice.textContent = said; }, 50);
  const moved = before !== document.querySelector("#asked + .prompt")?.textContent;
  if (moved) scrollTo(0, 0);
  focus(moved);
}

function focus(still) {
  document.querySelector("[data-focus]")?.focus({ preventScroll: still, focusVisible: true });
}

function tell(text) {
  document.querySelector(".notice").textContent = text;
}

/** The answer that has the focus, when it is another than the page thinks: the key is meant for it. */
function chosen() {
  const card = document.activeElement?.closest(".answer");
  return card && !card.hasAttribute("data-focus") ? card.dataset.letter : "";
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const keys = event.submitter?.value ?? "enter";
  press(() => keys);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.isComposing || !useKeys.checked) return;
  const key = event.key.toLowerCase();
  const onControl = event.target.closest("button, input, label, a, summary");
  if (key === "enter" && !onControl) {
    event.preventDefault();
    press(() => "enter");
  } else if (ONE.test(key) || COMMANDS.has(key)) {
    event.preventDefault();
    press(() => `${/^[1-9tx]$/.test(key) ? chosen() : ""} ${key}`.trim());
  }
});

focus(true);
