// Adds what screen readers and keyboards need to the markup of Swagger UI and Redoc.

"use strict";

/** Set attributes on all matching elements, now and whenever the page changes.
 *  rules: pairs of a selector and a function that returns the attributes of an element. */
function annotate(rules) {
  function apply() {
    for (const [selector, attributesOf] of rules) {
      for (const element of document.querySelectorAll(selector)) {
        for (const [name, value] of Object.entries(attributesOf(element))) {
          if (element.getAttribute(name) !== value) {
            element.setAttribute(name, value);
          }
        }
      }
    }
  }

  new MutationObserver(apply).observe(document.body, { childList: true, subtree: true });
}
