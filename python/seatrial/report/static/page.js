"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = [];
  let drawing = Promise.resolve();

  const config = () => {
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = getComputedStyle(document.body).fontFamily;
    const ink = colour("--ink"), quiet = colour("--quiet"), line = colour("--line");
    return {
      background: "transparent",
      font,
      view: { stroke: null },
      axis: {
        labelColor: quiet, titleColor: quiet, gridColor: line, domainColor: line,
        tickColor: line, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal",
        labelFont: font, titleFont: font, titlePadding: 8,
      },
      axisY: { domain: false, ticks: false, labelPadding: 6 },
      legend: {
        labelColor: ink, titleColor: quiet, labelFontSize: 12.5, symbolSize: 90,
        labelFont: font, titleFont: font, columnPadding: 14, offset: 8,
      },
      title: { color: ink },
    };
  };

  const draw = async () => {
    while (views.length) views.pop().finalize();
    for (const place of document.querySelectorAll("[data-figure]")) {
      const spec = specs[place.dataset.figure];
      const result = await vegaEmbed(place, spec, {
        renderer: "svg",
        config: config(),
        actions: { export: true, source: false, compiled: false, editor: false },
        downloadFileName: place.dataset.figure,
        tooltip: { theme: isDark() ? "dark" : "light" },
      });
      views.push(result);
    }
    root.dataset.drawn = isDark() ? "dark" : "light";
  };
  const redraw = () => {
    delete root.dataset.drawn;
    drawing = drawing.then(draw);
  };
  const isDark = () =>
    root.dataset.theme === "dark" || (root.dataset.theme === "auto" && systemDark.matches);

  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    root.dataset.theme = next;
    button.querySelector("span").textContent = next;
    redraw();
  });
  systemDark.addEventListener("change", () => {
    if (root.dataset.theme === "auto") redraw();
  });
  redraw();
})();
