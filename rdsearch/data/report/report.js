"use strict";
(() => {
  const all = [...document.querySelectorAll("details.hit")];
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
  // Paper cannot be unfolded. What was closed is closed again afterwards.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all.filter((one) => !one.open);
    closed.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => {
    closed.forEach((one) => { one.open = false; });
    closed = [];
  });
  document.querySelectorAll("section.query").forEach((section) => {
    const own = [...section.querySelectorAll("details.hit")];
    const heading = section.querySelector("h3");
    if (own.length < 2 || !heading) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Open all";
    button.addEventListener("click", () => {
      const open = button.textContent === "Open all";
      own.forEach((one) => { one.open = open; });
      button.textContent = open ? "Close all" : "Open all";
    });
    heading.append(" ", button);
  });
})();
