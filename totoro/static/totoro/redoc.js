// Redoc loads a logo from another host and has no option to turn that off. The page's policy blocks
// it; this prevents the attempt, and Redoc treats it as a failed image. React sets the URL of an image
// in two ways: as an attribute and as a property.

"use strict";

const image = HTMLImageElement.prototype;
const { get, set } = Object.getOwnPropertyDescriptor(image, "src");

function isOnOtherHost(url) {
  return /^(https?:)?\/\//.test(url);
}

image.setAttribute = function (name, value) {
  if (name !== "src" || !isOnOtherHost(value)) {
    Element.prototype.setAttribute.call(this, name, value);
  }
};

Object.defineProperty(image, "src", {
  get,
  set(url) {
    if (isOnOtherHost(url)) {
      this.dispatchEvent(new Event("error"));
    } else {
      set.call(this, url);
    }
  },
});

// On a phone, a <div> next to Redoc's menu opens it.
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
