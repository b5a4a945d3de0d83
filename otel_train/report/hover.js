'use strict';
// Shows a chart's numbers under the pointer, from the table below it. The page is complete without.
for (const figure of document.querySelectorAll('figure.chart')) {
  const plot = figure.querySelector('.plot');
  const heads = [...figure.querySelectorAll('thead th')].map((cell) => cell.textContent);
  const rows = [...figure.querySelectorAll('tbody tr')];
  if (!plot || rows.length === 0) continue;
  const tip = document.createElement('div');
  tip.className = 'tip';
  tip.setAttribute('aria-hidden', 'true');
  const rule = document.createElement('i');
  rule.className = 'rule';
  plot.addEventListener('pointermove', (event) => {
    const box = plot.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const off = (row) => Math.abs(row.dataset.x - share);
    const row = rows.reduce((best, next) => (off(best) > off(next) ? next : best));
    const lines = [...row.cells].map((cell, index) => {
      const line = document.createElement('span');
      const name = document.createElement('b');
      name.textContent = heads[index];
      line.append(name, ' ' + cell.textContent);
      return line;
    });
    tip.replaceChildren(...lines);
    const right = row.dataset.x > 0.5;
    rule.style.left = row.dataset.x * 100 + '%';
    tip.style.left = right ? 'auto' : row.dataset.x * 100 + '%';
    tip.style.right = right ? (1 - row.dataset.x) * 100 + '%' : 'auto';
    plot.append(rule, tip);
  });
  plot.addEventListener('pointerleave', () => { tip.remove(); rule.remove(); });
}
