"use strict";
{
  const slider = document.getElementById("slider"), opacity = document.getElementById("opacity");
  const show = () => {
    document.documentElement.style.setProperty("--heat", opacity.value / 100);
    slider.querySelector("output").textContent = `${opacity.value}%`;
  };
  slider.hidden = false;
  opacity.addEventListener("input", show);
  show(); // a browser may restore the slider of an earlier visit
  // A page that frames this one may not look into it, and needs its height.
  if (parent !== window) {
    const tell = () => parent.postMessage({ explanationHeight: Math.ceil(document.documentElement.getBoundingClientRect().height) }, "*");
    new ResizeObserver(tell).observe(document.body);
  }
  // Paper has no closed parts.
  const help = document.getElementById("help");
  let wasOpen = false;
  addEventListener("beforeprint", () => { wasOpen = help.open; help.open = true; });
  addEventListener("afterprint", () => { help.open = wasOpen; });
}
