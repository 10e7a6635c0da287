// Small helps for all pages; every page can be read without them.
"use strict"
// Parts that show what is so now are asked for again when something happened (see data-live).
document.addEventListener("DOMContentLoaded", () => {
  const live = document.querySelectorAll("[data-live]")
  if (!live.length || !window.EventSource) return
  const source = new EventSource(document.querySelector("[data-live]").dataset.live)
  let waiting = false
  source.onmessage = () => {
    if (waiting) return // many things at once are looked at once
    waiting = true
    setTimeout(() => { waiting = false; live.forEach(part => htmx.trigger(part, "refresh")) }, 250)
  }
  window.addEventListener("pagehide", () => source.close())
})
// Forms that cannot be taken back ask first.
document.addEventListener("submit", event => {
  const words = event.target.dataset.confirm
  if (words && !window.confirm(words)) event.preventDefault()
})
