// The chart of the network's uptime by day. The same numbers stand in the table below it.
"use strict"
document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll("[data-chart]")) {
    const days = JSON.parse(place.dataset.chart)
    if (!days.length || !window.uPlot) continue
    const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
    const grid = { stroke: colour("--pico-muted-border-color"), width: 1 }
    const ink = { stroke: colour("--pico-color"), grid, ticks: grid }
    const told = value => value == null ? "–" : (value >= 100 ? "100" : (Math.floor(value * 1000) / 1000).toFixed(3)) + " %"
    const low = Math.min(...days.map(day => day[1] ?? 1)) * 100
    const chart = new uPlot({
      width: place.clientWidth, height: 240,
      tzDate: seconds => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { y: { range: [Math.max(0, Math.floor(low) - 1), 100] } },
      axes: [{ ...ink, values: [[86400, "{MMM} {D}", null, null, null, null, null, null, 1]] },
             { ...ink, size: 60, values: (_, ticks) => ticks.map(tick => tick + " %") }],
      series: [{ value: "{YYYY}-{MM}-{DD}" },
               { label: "Paid", stroke: colour("--up"), width: 2, points: { show: true }, spanGaps: false, value: (_, value) => told(value) }],
    }, [days.map(day => Date.parse(day[0]) / 1000), days.map(day => day[1] == null ? null : day[1] * 100)], place)
    chart.over.addEventListener("click", () => {
      const at = chart.cursor.idx
      if (at != null) window.location = place.dataset.link + days[at][0]
    })
    new ResizeObserver(() => {
      if (place.clientWidth !== chart.width) chart.setSize({ width: place.clientWidth, height: 240 })
    }).observe(place)
  }
})
