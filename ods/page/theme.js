// The colours that the operator chose, kept by the browser. A classic script in the head, so that the page is never
// drawn in the wrong colours first; the button is wired once it is there.
"use strict";
{
  const KEY = "ods-theme";
  const THEMES = ["automatic", "light", "dark"];

  const kept = () => {
    try {
      return THEMES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : THEMES[0];
    } catch {
      return THEMES[0]; // storage is forbidden to this page: the system's choice it is
    }
  };

  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    const label = document.querySelector("#theme b");
    if (label !== null) label.textContent = theme;
    document.dispatchEvent(new Event("themechange"));
  };

  apply(kept());
  document.addEventListener("DOMContentLoaded", () => {
    apply(kept());
    document.getElementById("theme").addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
      try {
        localStorage.setItem(KEY, next);
      } catch {
        // It holds until the page is left.
      }
      apply(next);
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(kept()));
}
