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
