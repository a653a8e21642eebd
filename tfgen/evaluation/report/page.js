"use strict";

// --- Tables that sort, and rows that open ---------------------------------------------------------

const stored = document.getElementById("structures");
const scene = stored ? JSON.parse(stored.textContent) : { elements: {}, structures: [] };

document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0];
  table.querySelectorAll("thead button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const column = Number(button.dataset.column);
      const key = (row) => row.cells[column].dataset.v;
      const rows = Array.from(body.rows).filter((row) => !row.classList.contains("detail"));
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === ""); // nothing comes last
        const order = button.dataset.kind === "number" ? x - y : x.localeCompare(y);
        return down ? -order : order;
      });
      rows.forEach((row) => body.append(...(row.detail ? [row, row.detail] : [row])));
    });
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !row.classList.contains("detail") && !String(getSelection())) toggle(table, row);
  });
});

function toggle(table, row) {
  const button = row.querySelector("button");
  button.setAttribute("aria-expanded", String(!row.detail));
  if (row.detail) {
    row.detail.remove();
    row.detail = null;
    return;
  }
  row.detail = document.createElement("tr");
  row.detail.className = "detail";
  const cell = row.detail.insertCell();
  cell.colSpan = row.cells.length;
  const views = document.createElement("div");
  views.className = "views";
  views.style.width = table.parentElement.clientWidth + "px";
  cell.append(views);
  row.after(row.detail);
  const structure = scene.structures[Number(button.dataset.k)];
  const turn = { matrix: [1, 0, 0, 0, 1, 0, 0, 0, 1], viewers: [] };
  structure.views.forEach(([title, positions], place) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    figure.append(viewer(structure, place, turn, 300), caption);
    views.append(figure);
  });
  if (!structure.views.length) views.textContent = "cannot be drawn";
}

// --- Structures that turn -------------------------------------------------------------------------

const bonds = document.getElementById("bonds");
const every = new Set();
let ground = [255, 255, 255];
const redraw = () => {
  const card = getComputedStyle(document.documentElement).getPropertyValue("--card").trim();
  ground = rgb(card);
  every.forEach((draw) => draw());
};
if (bonds) bonds.addEventListener("change", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function mixed(colour, other, share) {
  return `rgb(${colour.map((c, i) => Math.round(c + share * (other[i] - c))).join(",")})`;
}

// A canvas that shows view `place` of a structure. Canvases with one `turn` turn together.
function viewer(structure, place, turn, size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = Math.round(size * Math.min(devicePixelRatio || 1, 2));
  canvas.style.width = size + "px";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", structure.label + ", " + structure.views[place][0]);
  canvas.title = "drag, or press the arrow keys, to turn; double-click to turn back";
  const draw = () => {
    if (canvas.isConnected) paint(canvas, structure, place, turn.matrix);
    else every.delete(draw);
  };
  every.add(draw);
  turn.viewers.push(draw);
  const rotate = (right, down) => {
    turn.matrix = times(turning(right, down), turn.matrix);
    turn.viewers.forEach((other) => other());
  };
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    last = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    rotate((event.clientX - last[0]) / 90, (event.clientY - last[1]) / 90);
    last = [event.clientX, event.clientY];
  });
  ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, () => {
    last = null;
  }));
  canvas.addEventListener("dblclick", () => {
    turn.matrix = [1, 0, 0, 0, 1, 0, 0, 0, 1];
    turn.viewers.forEach((other) => other());
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!step[event.key]) return;
    event.preventDefault();
    rotate(0.15 * step[event.key][0], 0.15 * step[event.key][1]);
  });
  requestAnimationFrame(draw);
  return canvas;
}

function turning(right, down) {
  const a = Math.cos(right), b = Math.sin(right), c = Math.cos(down), d = Math.sin(down);
  return [a, 0, b, b * d, c, -a * d, -b * c, d, a * c];
}

function times(p, q) {
  const result = [];
  for (let i = 0; i < 9; i++) {
    const row = 3 * Math.floor(i / 3), column = i % 3;
    result.push(p[row] * q[column] + p[row + 1] * q[column + 3] + p[row + 2] * q[column + 6]);
  }
  return result;
}

function paint(canvas, structure, place, m) {
  const pen = canvas.getContext("2d");
  const side = canvas.width, sticks = bonds && bonds.checked;
  pen.clearRect(0, 0, side, side);
  const scale = (0.5 * side) / structure.reach;
  const seen = (x, y, z) => [
    side / 2 + scale * (m[0] * x + m[1] * y + m[2] * z),
    side / 2 - scale * (m[3] * x + m[4] * y + m[5] * z),
    m[6] * x + m[7] * y + m[8] * z,
  ];
  const flat = structure.views[place][1];
  const atoms = structure.numbers.map((number, i) => {
    const [, colour, radius] = scene.elements[number];
    const at = flat.slice(3 * i, 3 * i + 3).map((value) => value / 100);
    return { at, seen: seen(...at), colour: rgb(colour), covalent: radius,
      radius: radius * (sticks ? 0.5 : 0.95) };
  });
  const front = Math.max(...atoms.map((a) => a.seen[2]));
  const depth = Math.max(front - Math.min(...atoms.map((a) => a.seen[2])), 2);
  const faded = (colour, z, light) => {
    const lit = colour.map((c) => (light > 0 ? c + light * (255 - c) : c * (1 + light)));
    return mixed(lit, ground, (0.5 * (front - z)) / depth);
  };
  pen.lineCap = "butt";
  pen.lineWidth = Math.max(1, 0.04 * scale);
  pen.strokeStyle = mixed([128, 128, 128], ground, 0.3);
  structure.cell.forEach((edge) => {
    const p = seen(...edge.slice(0, 3)), q = seen(...edge.slice(3));
    line(pen, p, q);
  });
  const things = atoms.map((a) => [a.seen[2], () => sphere(pen, a, scale, faded)]);
  if (sticks) {
    atoms.forEach((a, i) => atoms.slice(0, i).forEach((b) => {
      const length = Math.hypot(a.at[0] - b.at[0], a.at[1] - b.at[1], a.at[2] - b.at[2]);
      if (length > scene.bond * (a.covalent + b.covalent)) return;
      const z = (a.seen[2] + b.seen[2]) / 2;
      // From surface to surface: an end inside a sphere would show in front of it.
      const along = (share) => [0, 1].map((k) => a.seen[k] + share * (b.seen[k] - a.seen[k]));
      const from = (0.9 * a.radius) / length, to = 1 - (0.9 * b.radius) / length;
      if (from >= to) return;
      things.push([z, () => {
        pen.lineWidth = 0.26 * scale;
        pen.strokeStyle = faded(a.colour, z, -0.3);
        line(pen, along(from), along(0.5));
        pen.strokeStyle = faded(b.colour, z, -0.3);
        line(pen, along(0.5), along(to));
      }]);
    }));
  }
  things.sort((p, q) => p[0] - q[0]).forEach((thing) => thing[1]());
}

function line(pen, from, to) {
  pen.beginPath();
  pen.moveTo(from[0], from[1]);
  pen.lineTo(to[0], to[1]);
  pen.stroke();
}

function sphere(pen, atom, scale, faded) {
  const [x, y, z] = atom.seen, r = atom.radius * scale;
  const shade = pen.createRadialGradient(x - 0.3 * r, y - 0.38 * r, 0, x, y, 1.05 * r);
  shade.addColorStop(0, faded(atom.colour, z, 0.75));
  shade.addColorStop(0.45, faded(atom.colour, z, 0));
  shade.addColorStop(1, faded(atom.colour, z, -0.58));
  pen.beginPath();
  pen.arc(x, y, r, 0, 2 * Math.PI);
  pen.fillStyle = shade;
  pen.fill();
  pen.lineWidth = Math.max(0.5, 0.03 * scale);
  pen.strokeStyle = faded(atom.colour, z, -0.75);
  pen.stroke();
}

redraw();

// The drawings of the gallery stay until they come into view, and for good without scripts.
const gallery = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (!entry.isIntersecting) return;
  gallery.unobserve(entry.target);
  const structure = scene.structures[Number(entry.target.dataset.k)];
  const drawing = entry.target.querySelector("svg");
  if (!structure || !structure.views.length || !drawing) return;
  const turn = { matrix: [1, 0, 0, 0, 1, 0, 0, 0, 1], viewers: [] };
  drawing.replaceWith(viewer(structure, structure.shown, turn, 132));
}));
document.querySelectorAll(".gallery figure").forEach((figure) => gallery.observe(figure));
