// Below its menu Redoc draws its maker's logo, from another host, and has no option against it. The
// page's policy stops that; this spares the attempt, and Redoc goes on as if it had failed. React
// sets the address of a picture twice, once in each way.

"use strict";

const picture = HTMLImageElement.prototype;
const { get, set } = Object.getOwnPropertyDescriptor(picture, "src");

function isElsewhere(address) {
  return /^(https?:)?\/\//.test(address);
}

picture.setAttribute = function (name, value) {
  if (name !== "src" || !isElsewhere(value)) {
    Element.prototype.setAttribute.call(this, name, value);
  }
};

Object.defineProperty(picture, "src", {
  get,
  set(address) {
    if (isElsewhere(address)) {
      this.dispatchEvent(new Event("error"));
    } else {
      set.call(this, address);
    }
  },
});

// On a phone Redoc opens its menu with a <div>, the one next to the menu.
const MENU_BUTTON = ".menu-content + div";

annotate([
  [MENU_BUTTON, () => ({ role: "button", tabindex: "0", "aria-label": "Operations" })],
  [".api-content", () => ({ role: "main" })],
  [".menu-content", () => ({ role: "navigation", "aria-label": "Operations" })],
  [".api-content h5", () => ({ "aria-level": "3" })],
]);

document.addEventListener("keydown", (event) => {
  if (event.target.matches(MENU_BUTTON) && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    event.target.click();
  }
});

// Redoc's own grey is too light for small text (WCAG 2.2, 1.4.3).
const theme = { colors: { text: { secondary: "#5a5a5a" } } };
document.querySelector("redoc").setAttribute("theme", JSON.stringify(theme));
