// Draws one viewer: `root` is its <section>, `data` what ites/show/viewer.py packed.
// 3D is drawn on a plain canvas: no library, so a page of an hour's poses is ready at once.
function startViewer(root, data) {
  const find = (name) => root.querySelector("." + name);
  const [flat, solid, chart, slider, play, picker, speed, tip] =
    ["flat", "solid", "chart", "slider", "play", "picker", "speed", "tip"].map(find);
  const boxes = Object.fromEntries(["truth", "before", "input", "path", "place"].map((n) => [n, find(n)]));
  const packs = [...find("packs").children];
  const sides = Object.keys(data.bones), J = data.joints.length;
  const everyBone = sides.flatMap((side) => data.bones[side].map(([a, b]) => [a, b, side]));
  const sideOf = new Array(J).fill("middle");
  for (const side of ["right", "left"]) for (const [, b] of data.bones[side]) sideOf[b] = side;
  const SPACING = 1.3, GRID = 0.5, LONG = 180; // metres, metres, seconds
  const VIEWS = { start: [-0.42, 0.16], front: [0, 0.04], side: [-Math.PI / 2, 0.04], top: [0, Math.PI / 2 - 0.02] };
  const state = { scene: null, people: [], frame: 0, frames: 1, fps: 25, playing: false, held: false, clock: 0, due: false };
  const eye = { yaw: 0, pitch: 0, distance: 4, target: [0, 0, 0] };

  // ---------------------------------------------------------------- packed frames
  function bytes(index) {
    const text = packs[index].textContent.trim();
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const raw = atob(text), array = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) array[i] = raw.charCodeAt(i);
    return array;
  }
  const aligned = (Type, array) => new Type(array.buffer, array.byteOffset, array.byteLength / Type.BYTES_PER_ELEMENT);

  // 16-bit whole numbers times the frame's step, little-endian; the least stands for nan.
  function unpack(packed) {
    if (!packed) return null;
    const whole = aligned(Int16Array, bytes(packed.data)), steps = aligned(Float32Array, bytes(packed.steps));
    const size = packed.size;
    return { size, at: (frame, i) => {
      const value = whole[frame * size + i];
      return value === data.unknown ? NaN : value * steps[frame];
    } };
  }
  function unpackPath(packed) {
    if (!packed) return null;
    const values = aligned(Float32Array, bytes(packed.data));
    return { size: 3, at: (frame, i) => values[3 * frame + i] };
  }
  function unpackConfidence(packed) {
    if (!packed) return null;
    const values = bytes(packed.data), size = packed.size;
    return { size, at: (frame, i) => {
      const value = values[frame * size + i];
      return value === data.unsure ? NaN : value / data.sure;
    } };
  }
  const cache = new Map();
  function clipOf(index) {
    if (!cache.has(index)) {
      const c = data.clips[index];
      cache.set(index, {
        ...c, index, shown: true,
        keypoints: unpack(c.keypoints), positions: unpack(c.positions), truth: unpack(c.truth),
        before: unpack(c.before), root: unpackPath(c.root), error: unpack(c.error),
        confidence: unpackConfidence(c.confidence), sign: unpackConfidence(c.sign),
      });
    }
    return cache.get(index);
  }

  // The row of a person in a frame of the scene; -1 where the clip does not reach.
  const rowOf = (clip, frame) => {
    const row = frame + state.first - clip.start;
    return row >= 0 && row < clip.frames ? row : -1;
  };
  const point2 = (clip, row, j) => [clip.keypoints.at(row, 2 * j), clip.keypoints.at(row, 2 * j + 1)];
  const point3 = (values, row, j) => [values.at(row, 3 * j), values.at(row, 3 * j + 1), values.at(row, 3 * j + 2)];
  const confidence = (clip, row, j) => (clip.confidence ? clip.confidence.at(row, j) : 1);
  const doubtful = (clip, row) => clip.sign !== null && clip.sign.at(row, 0) < data.doubt;

  // ---------------------------------------------------------------- colours
  const style = {};
  const NAMES = ["ink", "soft", "line", "paper", "floor", "right", "middle", "left", "truth", "before", "accent", "doubt",
    "confidence", "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];
  function readColours() {
    const computed = getComputedStyle(root);
    for (const name of NAMES) style[name] = computed.getPropertyValue("--" + name).trim();
    style.font = computed.fontFamily;
  }
  const several = () => state.people.length > 1;
  const colourOf = (clip, side) =>
    side === "middle" && several() ? style["p" + (clip.place % 8)] : style[side];

  // ---------------------------------------------------------------- canvases
  function fit(canvas) {
    const { width, height } = canvas.parentElement.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.lineCap = context.lineJoin = "round";
    return [context, width, height];
  }
  function stroke(context, points, colour, width, alpha = 1) {
    context.globalAlpha = alpha; context.strokeStyle = colour; context.lineWidth = width;
    context.beginPath();
    let down = false;
    for (const p of points) {
      if (!p || Number.isNaN(p[0])) { down = false; continue; }
      if (down) context.lineTo(p[0], p[1]); else context.moveTo(p[0], p[1]);
      down = true;
    }
    context.stroke(); context.globalAlpha = 1;
  }
  function dot(context, p, radius, colour, alpha = 1, edge = style.paper) {
    context.globalAlpha = alpha; context.fillStyle = colour;
    context.beginPath(); context.arc(p[0], p[1], radius, 0, 7); context.fill();
    if (edge) { context.lineWidth = 1; context.strokeStyle = edge; context.stroke(); }
    context.globalAlpha = 1;
  }
  function text(context, words, x, y, colour, size = 12, align = "left", weight = 400) {
    context.font = `${weight} ${size}px ${style.font}`; context.textAlign = align; context.fillStyle = colour;
    context.fillText(words, x, y);
  }
  function tag(context, words, x, y, colour) {
    context.font = `600 12px ${style.font}`;
    const wide = context.measureText(words).width + 14;
    context.fillStyle = colour; context.globalAlpha = 0.92;
    context.beginPath(); context.roundRect(x - wide / 2, y - 19, wide, 19, 9.5); context.fill();
    context.globalAlpha = 1;
    text(context, words, x, y - 5.5, style.paper, 12, "center", 600);
  }

  // ---------------------------------------------------------------- the image
  let image = (p) => p;
  function drawFlat() {
    const [context, width, height] = fit(flat);
    const [x0, x1, y0, y1] = state.window, pad = 14;
    const scale = Math.min((width - 2 * pad) / (x1 - x0), (height - 2 * pad) / (y1 - y0));
    const [mx, my] = [(x0 + x1) / 2, (y0 + y1) / 2];
    image = ([x, y]) => [width / 2 + (x - mx) * scale, height / 2 + (y - my) * scale];
    if (state.image) {
      const [a, b] = [image([0, 0]), image(state.image)];
      context.fillStyle = style.floor; context.globalAlpha = 0.5;
      context.fillRect(a[0], a[1], b[0] - a[0], b[1] - a[1]);
      context.globalAlpha = 1; context.strokeStyle = style.line; context.lineWidth = 1;
      context.strokeRect(a[0], a[1], b[0] - a[0], b[1] - a[1]);
    }
    for (const clip of state.people) {
      const row = rowOf(clip, state.frame);
      if (row < 0 || !clip.shown) continue;
      for (const [a, b, side] of everyBone) {
        const ends = [point2(clip, row, a), point2(clip, row, b)];
        if (ends.some((p) => Number.isNaN(p[0]))) continue;
        const sure = Math.min(confidence(clip, row, a), confidence(clip, row, b));
        stroke(context, ends.map(image), colourOf(clip, side), 3.2, 0.15 + 0.85 * (sure || 0));
      }
      for (let j = 0; j < J; j++) {
        const p = point2(clip, row, j), sure = confidence(clip, row, j) || 0;
        if (Number.isNaN(p[0])) continue;
        if (sure > 0) dot(context, image(p), 2.4 + 2 * sure, colourOf(clip, sideOf[j]), 0.25 + 0.75 * sure);
        else { // filled in, not seen
          const q = image(p);
          context.strokeStyle = colourOf(clip, sideOf[j]); context.lineWidth = 1.2;
          context.beginPath(); context.arc(q[0], q[1], 3, 0, 7); context.stroke();
        }
      }
      if (several()) label2(context, clip, row);
    }
    if (state.image) text(context, `${state.image[0]} × ${state.image[1]} px`, 12, height - 10, style.soft, 11);
  }
  function label2(context, clip, row) {
    let top = null;
    for (let j = 0; j < J; j++) {
      const p = image(point2(clip, row, j));
      if (!Number.isNaN(p[0]) && (!top || p[1] < top[1])) top = p;
    }
    if (top) tag(context, clip.label, top[0], top[1] - 8, style["p" + (clip.place % 8)]);
  }

  // ---------------------------------------------------------------- the room
  // World axes: right, away from the camera, up; metres.
  const upright = (p) => [p[0], p[2], -p[1]];
  const placed = () => state.paths && boxes.place.checked;
  function offset(clip, row) {
    if (placed()) {
      const p = upright([clip.root.at(row, 0), clip.root.at(row, 1), clip.root.at(row, 2)]);
      return Number.isNaN(p[0]) ? null : p;
    }
    return [(clip.place - (state.people.length - 1) / 2) * SPACING, 0, 0];
  }
  function world(values, clip, row, j) {
    const o = offset(clip, row);
    if (!o) return [NaN, NaN, NaN];
    const p = upright(point3(values, row, j));
    return [p[0] + o[0], p[1] + o[1], p[2] + o[2]];
  }
  let project = (p) => p;
  function look(width, height) {
    const [sy, cy, sp, cp] = [Math.sin(eye.yaw), Math.cos(eye.yaw), Math.sin(eye.pitch), Math.cos(eye.pitch)];
    const focal = 1.35 * Math.min(width, height), near = 0.05;
    project = (p) => {
      const [x, y, z] = [p[0] - eye.target[0], p[1] - eye.target[1], p[2] - eye.target[2]];
      const [a, b] = [cy * x + sy * y, -sy * x + cy * y]; // turned about the vertical
      const depth = eye.distance + cp * b - sp * z, up = sp * b + cp * z;
      if (!(depth > near)) return [NaN, NaN, depth, 0];
      const scale = focal / depth;
      return [width / 2 + a * scale, height / 2 - up * scale, depth, scale];
    };
  }
  function drawFloor(context) {
    const [x0, x1, y0, y1, z] = state.floor;
    const fade = (u) => Math.max(0, 1 - u ** 4);
    const [mx, my, rx, ry] = [(x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2];
    const corners = [[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]].map(project);
    if (corners.every((p) => !Number.isNaN(p[0]))) {
      context.fillStyle = style.floor; context.globalAlpha = 0.55;
      context.beginPath(); corners.forEach((p, i) => (i ? context.lineTo(p[0], p[1]) : context.moveTo(p[0], p[1])));
      context.fill(); context.globalAlpha = 1;
    }
    const step = Math.max(GRID, GRID * 2 ** Math.ceil(Math.log2(Math.max(x1 - x0, y1 - y0) / 16)));
    state.grid = step;
    const cut = 12;
    for (let x = Math.ceil(x0 / step) * step; x <= x1 + 1e-6; x += step)
      stroke(context, Array.from({ length: cut + 1 }, (_, i) => project([x, y0 + ((y1 - y0) * i) / cut, z])), style.line, 1, 0.35 + 0.65 * fade((x - mx) / rx));
    for (let y = Math.ceil(y0 / step) * step; y <= y1 + 1e-6; y += step)
      stroke(context, Array.from({ length: cut + 1 }, (_, i) => project([x0 + ((x1 - x0) * i) / cut, y, z])), style.line, 1, 0.35 + 0.65 * fade((y - my) / ry));
  }
  function drawPath(context, clip) {
    if (!clip.trail) return;
    const z = state.floor[4], colour = several() ? style["p" + (clip.place % 8)] : style.accent;
    const row = rowOf(clip, state.frame), past = [];
    const near = clip.frames > LONG * state.fps; // of a long clip the path of the minute around
    const trail = near ? clip.trail.filter((_, i) => Math.abs(i * clip.every - row) < 30 * state.fps) : clip.trail;
    stroke(context, trail.map((p) => (p ? project([p[0], p[1], z]) : null)), colour, 2, 0.35);
    for (let t = Math.max(0, row - Math.round(2 * state.fps)); row >= 0 && t <= row; t++) {
      const o = offset(clip, t);
      past.push(o ? project([o[0], o[1], z]) : null);
    }
    stroke(context, past, colour, 3.5, 0.95);
    const here = past[past.length - 1];
    if (here && !Number.isNaN(here[0])) dot(context, here, 4.5, colour);
  }
  function thin(context, values, clip, row, colour, width, alpha) {
    for (const [a, b] of everyBone)
      stroke(context, [project(world(values, clip, row, a)), project(world(values, clip, row, b))], colour, width, alpha);
  }
  // The 2D input as a flat figure at the root's depth: its size is fitted to the pose by least squares.
  function input(clip, row) {
    const o = point2(clip, row, data.root);
    let product = 0, square = 0;
    const from = Array.from({ length: J }, (_, j) => { const p = point2(clip, row, j); return [p[0] - o[0], p[1] - o[1]]; });
    from.forEach((k, j) => {
      const p = point3(clip.positions, row, j);
      if (Number.isNaN(k[0] + p[0])) return;
      product += k[0] * p[0] + k[1] * p[1]; square += k[0] * k[0] + k[1] * k[1];
    });
    const s = square ? product / square : NaN;
    return { at: (_, i) => (i % 3 === 2 ? 0 : from[Math.floor(i / 3)][i % 3] * s) };
  }
  function drawSolid() {
    const [context, width, height] = fit(solid);
    look(width, height);
    drawFloor(context);
    if (state.paths && boxes.path.checked && placed())
      for (const clip of state.people) if (clip.shown) drawPath(context, clip);
    const limbs = [], heads = [];
    for (const clip of state.people) {
      const row = rowOf(clip, state.frame);
      if (row < 0 || !clip.shown || !clip.positions) continue;
      const points = Array.from({ length: J }, (_, j) => world(clip.positions, clip, row, j));
      const shadow = points.map((p) => project([p[0], p[1], state.floor[4]]));
      for (const [a, b] of everyBone)
        if (!Number.isNaN(points[a][0] + points[b][0])) stroke(context, [shadow[a], shadow[b]], style.ink, Math.min(9, 0.03 * shadow[a][3]), 0.08);
      if (clip.truth && boxes.truth.checked) thin(context, clip.truth, clip, row, style.truth, 2.4, 0.9);
      if (clip.before && boxes.before.checked) thin(context, clip.before, clip, row, style.before, 2, 0.85);
      if (boxes.input.checked) thin(context, input(clip, row), clip, row, style.before, 2, 0.85);
      const seen = points.map(project), pale = doubtful(clip, row) ? 0.35 : 1;
      for (const [a, b, side] of everyBone) {
        if (Number.isNaN(seen[a][0] + seen[b][0])) continue;
        limbs.push({ depth: (seen[a][2] + seen[b][2]) / 2, draw: () => {
          const wide = Math.max(2, Math.min(14, 0.035 * (seen[a][3] + seen[b][3]) / 2));
          stroke(context, [seen[a], seen[b]], style.paper, wide + 2, pale);
          stroke(context, [seen[a], seen[b]], colourOf(clip, side), wide, pale);
        } });
      }
      seen.forEach((p, j) => {
        if (!Number.isNaN(p[0])) limbs.push({ depth: p[2] - 0.01, draw: () =>
          dot(context, p, Math.max(1.8, Math.min(8, 0.021 * p[3])), colourOf(clip, sideOf[j]), pale) });
      });
      if (several()) {
        const top = seen.filter((p) => !Number.isNaN(p[0])).sort((a, b) => a[1] - b[1])[0];
        if (top) heads.push(() => tag(context, clip.label, top[0], top[1] - 9, style["p" + (clip.place % 8)]));
      }
    }
    limbs.sort((a, b) => b.depth - a.depth).forEach((limb) => limb.draw());
    heads.forEach((head) => head());
    drawAxes(context, height);
    text(context, `squares of ${state.grid} m`, width - 12, height - 10, style.soft, 11, "right");
    if (!state.people.some((clip) => clip.positions))
      text(context, "no 3D in this file", width / 2, height / 2, style.soft, 14, "center");
  }
  function drawAxes(context, height) {
    const [sy, cy, sp, cp] = [Math.sin(eye.yaw), Math.cos(eye.yaw), Math.sin(eye.pitch), Math.cos(eye.pitch)];
    const at = [44, height - 40];
    for (const [words, x, y, z] of [["right", 1, 0, 0], ["away", 0, 1, 0], ["up", 0, 0, 1]]) {
      const [a, b] = [cy * x + sy * y, -sy * x + cy * y];
      const end = [at[0] + 26 * a, at[1] - 26 * (sp * b + cp * z)];
      if (Math.hypot(end[0] - at[0], end[1] - at[1]) < 7) continue;
      stroke(context, [at, end], style.soft, 1.5);
      const far = [at[0] + (end[0] - at[0]) * 1.28, at[1] + (end[1] - at[1]) * 1.28];
      text(context, words, far[0], far[1] + 3, style.soft, 10, end[0] < at[0] - 8 ? "right" : end[0] > at[0] + 8 ? "left" : "center");
    }
  }

  // ---------------------------------------------------------------- the time line
  function drawChart() {
    const [context, width, height] = fit(chart);
    const top = 3, low = height - 8;
    const known = state.people.filter((clip) => clip.shown && clip.confidence);
    const each = state.frames / width;
    if (known.length) {
      context.fillStyle = style.confidence; context.globalAlpha = 0.35; context.beginPath(); context.moveTo(0, low);
      for (let x = 0; x < width; x++) {
        let sum = 0, count = 0;
        for (let k = 0; k < Math.max(1, Math.min(4, each)); k++) {
          const frame = Math.min(state.frames - 1, Math.floor((x + k / Math.max(1, Math.min(4, each))) * each));
          for (const clip of known) {
            const row = rowOf(clip, frame);
            for (let j = 0; j < J; j++) { sum += row < 0 ? 0 : confidence(clip, row, j) || 0; count++; }
          }
        }
        context.lineTo(x, low - (low - top) * (sum / count));
      }
      context.lineTo(width, low); context.fill(); context.globalAlpha = 1;
    }
    context.fillStyle = style.line; context.fillRect(0, low, width, 4);
    context.fillStyle = style.doubt;
    state.doubts = [];
    for (const clip of state.people.filter((c) => c.shown && c.sign)) {
      for (let start = 0; start < clip.frames; ) {
        let end = start + 1;
        while (end < clip.frames && doubtful(clip, end) === doubtful(clip, start)) end++;
        if (doubtful(clip, start)) {
          const from = start + clip.start - state.first;
          state.doubts.push([from, from + end - start]);
          context.fillRect(from / each, low, Math.max(1, (end - start) / each), 4);
        }
        start = end;
      }
    }
  }
  function drawCursor() {
    const [context, width, height] = fit(find("cursor"));
    const x = Math.min(width - 6, Math.max(6, ((state.frame + 0.5) / state.frames) * width));
    context.fillStyle = style.accent; context.fillRect(x - 1, 0, 2, height - 3);
    dot(context, [x, height - 6], 6, style.accent);
  }

  // ---------------------------------------------------------------- all of it
  const clock = (seconds) => {
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    return h || m ? `${h ? h + ":" + String(m).padStart(2, "0") : m}:${s.toFixed(1).padStart(4, "0")}` : `${s.toFixed(2)} s`;
  };
  function words() {
    const first = state.people.find((clip) => clip.shown && rowOf(clip, state.frame) >= 0);
    const row = first ? rowOf(first, state.frame) : -1;
    const known = (values) => values && row >= 0 && !Number.isNaN(values.at(row, 0));
    find("time").textContent =
      `frame ${(state.frame + 1).toLocaleString("en")} of ${state.frames.toLocaleString("en")}  ·  ${clock(state.frame / state.fps)}`;
    const who = several() && first ? `${first.label}: ` : "";
    find("error").textContent = first && known(first.error)
      ? `${who}off by ${Math.round(first.error.at(row, 0))} mm in this frame, ${first.mean} mm on average` : "";
    find("sure").textContent = first && known(first.sign) ? `${who}depth's sign ${Math.round(100 * first.sign.at(row, 0))}% sure` : "";
  }
  function draw() {
    state.due = false;
    drawFlat(); drawSolid(); drawCursor(); words();
    slider.value = state.frame;
  }
  function ask() {
    if (!state.due) { state.due = true; requestAnimationFrame(() => state.due && draw()); }
  }
  function show(frame) {
    state.frame = Math.max(0, Math.min(state.frames - 1, Math.round(frame)));
    ask();
  }
  function refresh() { readColours(); drawChart(); draw(); }

  function bounds() {
    let [x0, x1, y0, y1, low, high] = [Infinity, -Infinity, Infinity, -Infinity, Infinity, -Infinity];
    for (const clip of state.people) {
      const [half, bottom, top] = clip.box;
      const points = placed() ? clip.trail.filter(Boolean) : [offset(clip, 0)];
      for (const p of points) {
        x0 = Math.min(x0, p[0] - half); x1 = Math.max(x1, p[0] + half);
        y0 = Math.min(y0, p[1] - half); y1 = Math.max(y1, p[1] + half);
        low = Math.min(low, p[2] + bottom); high = Math.max(high, p[2] + top);
      }
    }
    state.floor = [x0 - 0.3, x1 + 0.3, y0 - 0.3, y1 + 0.3, low + 0.05];
    state.extent = [x0, x1, y0, y1, low, high];
  }
  function turn(name) {
    const [x0, x1, y0, y1, low, high] = state.extent;
    [eye.yaw, eye.pitch] = VIEWS[name];
    eye.target = [(x0 + x1) / 2, (y0 + y1) / 2, (low + high) / 2];
    const { width, height } = solid.parentElement.getBoundingClientRect();
    const corners = [x0, x1].flatMap((x) => [y0, y1].flatMap((y) => [low, high].map((z) => [x, y, z])));
    let [near, far] = [0.3, 1000];
    for (let i = 0; i < 40; i++) { // the nearest place from which all of the box is seen, in the middle
      eye.distance = Math.sqrt(near * far);
      look(width, height);
      const seen = corners.map((p) => project(p));
      const [xs, ys] = [seen.map((p) => p[0]), seen.map((p) => p[1])];
      const [l, r, t, b] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      if (seen.some((p) => Number.isNaN(p[0]))) { near = eye.distance; continue; }
      if (r - l > 0.92 * width || b - t > 0.86 * height) near = eye.distance; else far = eye.distance;
      pan(width / 2 - (l + r) / 2, height * 0.5 - (t + b) / 2);
    }
  }

  function choose(index) {
    const scene = data.scenes[index];
    state.scene = scene; state.fps = scene.fps;
    state.people = scene.clips.map(clipOf);
    state.first = Math.min(...state.people.map((clip) => clip.start));
    state.frames = Math.max(...state.people.map((clip) => clip.start + clip.frames)) - state.first;
    state.frame = 0;
    state.image = state.people[0].image;
    state.window = state.people.map((clip) => clip.window).reduce((a, b) =>
      [Math.min(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.max(a[3], b[3])]);
    state.people.forEach((clip, i) => { clip.place = i; clip.shown = true; });
    state.paths = state.people.every((clip) => clip.root);
    boxes.place.checked = state.paths;
    for (const clip of state.people) {
      clip.trail = null;
      if (!clip.root) continue;
      const every = clip.every = Math.max(1, Math.ceil(clip.frames / 12000));
      clip.trail = [];
      for (let t = 0; t < clip.frames; t += every) {
        const p = upright([clip.root.at(t, 0), clip.root.at(t, 1), clip.root.at(t, 2)]);
        clip.trail.push(Number.isNaN(p[0]) ? null : p);
      }
    }
    slider.max = state.frames - 1;
    const count = state.people.length;
    find("about").textContent = `${count > 1 ? `${count} people, ` : ""}${state.frames.toLocaleString("en")} frames, ` +
      `${clock(state.frames / state.fps)} at ${+state.fps.toFixed(2)} fps`;
    const has = (name) => state.people.some((clip) => clip[name]);
    find("truth-key").hidden = !has("truth");
    find("before-key").hidden = !has("before");
    find("input-key").hidden = !has("positions");
    find("conf-key").hidden = !has("confidence");
    find("doubt-key").hidden = !has("sign");
    find("path-key").hidden = find("place-key").hidden = !state.paths;
    find("middle-key").hidden = count > 1;
    people();
    readColours(); bounds(); turn("start"); drawChart(); draw();
  }
  function people() {
    const box = find("people");
    box.replaceChildren();
    if (!several()) return;
    for (const clip of state.people) {
      const chip = document.createElement("button");
      chip.className = "chip"; chip.style.setProperty("--colour", `var(--p${clip.place % 8})`);
      chip.textContent = clip.label; chip.setAttribute("aria-pressed", "true");
      chip.title = "show or hide this person";
      chip.addEventListener("click", () => {
        clip.shown = !clip.shown; chip.setAttribute("aria-pressed", String(clip.shown));
        drawChart(); draw();
      });
      box.append(chip);
    }
  }

  // ---------------------------------------------------------------- play and handle
  function tick() {
    if (!state.playing) return;
    const now = performance.now();
    const step = ((now - state.clock) / 1000) * state.fps * Number(speed.value);
    if (step >= 1 && !state.held) {
      state.frame = (state.frame + Math.floor(step)) % state.frames;
      state.clock = now;
      draw();
    }
    requestAnimationFrame(tick);
  }
  function setPlaying(on) {
    state.playing = on;
    play.textContent = on ? "❚❚" : "▶";
    play.setAttribute("aria-label", on ? "pause" : "play");
    state.clock = performance.now();
    if (on) requestAnimationFrame(tick);
  }
  const pointers = new Map();
  solid.addEventListener("pointerdown", (e) => { pointers.set(e.pointerId, e); try { solid.setPointerCapture(e.pointerId); } catch { /* a pointer of a test */ } });
  solid.addEventListener("pointermove", (e) => {
    const old = pointers.get(e.pointerId);
    if (!old) return hover(e, solid);
    const [dx, dy] = [e.clientX - old.clientX, e.clientY - old.clientY];
    const others = [...pointers.values()].filter((p) => p.pointerId !== e.pointerId);
    if (others.length) { // two fingers: zoom and move
      const gap = (p) => Math.hypot(p.clientX - others[0].clientX, p.clientY - others[0].clientY);
      eye.distance *= gap(old) / Math.max(1, gap(e));
      pan(dx / 2, dy / 2);
    } else if (e.buttons === 2 || e.shiftKey) pan(dx, dy);
    else {
      eye.yaw -= 0.008 * dx;
      eye.pitch = Math.max(-0.3, Math.min(Math.PI / 2 - 0.02, eye.pitch + 0.008 * dy));
    }
    pointers.set(e.pointerId, e);
    ask();
  });
  for (const name of ["pointerup", "pointercancel"]) solid.addEventListener(name, (e) => pointers.delete(e.pointerId));
  // Move the scene by pixels: along the screen's right and up.
  function pan(dx, dy) {
    const { width, height } = solid.parentElement.getBoundingClientRect();
    const scale = eye.distance / (1.35 * Math.min(width, height));
    const [sy, cy, sp, cp] = [Math.sin(eye.yaw), Math.cos(eye.yaw), Math.sin(eye.pitch), Math.cos(eye.pitch)];
    const [right, up] = [[cy, sy, 0], [-sy * sp, cy * sp, cp]];
    for (let k = 0; k < 3; k++) eye.target[k] += scale * (dy * up[k] - dx * right[k]);
  }
  solid.addEventListener("wheel", (e) => {
    e.preventDefault();
    eye.distance = Math.max(0.3, Math.min(500, eye.distance * Math.exp(0.0012 * e.deltaY)));
    ask();
  }, { passive: false });
  solid.addEventListener("contextmenu", (e) => e.preventDefault());
  solid.addEventListener("dblclick", () => { turn("start"); ask(); });
  flat.addEventListener("pointermove", (e) => hover(e, flat));
  for (const canvas of [flat, solid]) canvas.addEventListener("pointerleave", () => { tip.hidden = true; });

  // Names the joint under the pointer.
  function hover(e, canvas) {
    const area = canvas.getBoundingClientRect(), at = [e.clientX - area.left, e.clientY - area.top];
    let best = null;
    for (const clip of state.people) {
      const row = rowOf(clip, state.frame);
      if (row < 0 || !clip.shown || (canvas === solid && !clip.positions)) continue;
      for (let j = 0; j < J; j++) {
        const p = canvas === flat ? image(point2(clip, row, j)) : project(world(clip.positions, clip, row, j));
        const off = Math.hypot(p[0] - at[0], p[1] - at[1]);
        if (off < 12 && (!best || off < best.off)) best = { off, clip, row, j };
      }
    }
    tip.hidden = !best;
    if (!best) return;
    const { clip, row, j } = best, who = several() ? `${clip.label} · ` : "";
    const numbers = canvas === flat
      ? `${point2(clip, row, j).map((v) => v.toFixed(1)).join(", ")} px` + (clip.confidence ? ` · confidence ${confidence(clip, row, j).toFixed(2)}` : "")
      : (([x, y, z]) => `right ${x.toFixed(2)}, away ${y.toFixed(2)}, up ${z.toFixed(2)} m`)(upright(point3(clip.positions, row, j)));
    tip.textContent = `${who}${data.joints[j].replaceAll("_", " ")}: ${numbers}`;
    const home = root.getBoundingClientRect();
    tip.style.left = `${Math.min(e.clientX - home.left + 14, home.width - tip.offsetWidth - 8)}px`;
    tip.style.top = `${e.clientY - home.top + 16}px`;
  }

  play.addEventListener("click", () => setPlaying(!state.playing));
  slider.addEventListener("input", () => show(Number(slider.value)));
  slider.addEventListener("pointerdown", () => { state.held = true; });
  window.addEventListener("pointerup", () => { state.held = false; state.clock = performance.now(); });
  for (const box of Object.values(boxes)) box.addEventListener("change", () => {
    if (box === boxes.place) { bounds(); turn("start"); }
    draw();
  });
  for (const button of root.querySelectorAll("[data-view]"))
    button.addEventListener("click", () => { turn(button.dataset.view); draw(); });
  picker.addEventListener("change", () => { setPlaying(false); choose(Number(picker.value)); });
  root.addEventListener("keydown", (e) => {
    if (e.target.tagName === "SELECT") return;
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[e.key];
    if (step && e.target !== slider) { e.preventDefault(); show(state.frame + step * (e.shiftKey ? 10 : 1)); }
    if (e.key === " " && e.target.tagName !== "BUTTON") { e.preventDefault(); setPlaying(!state.playing); }
  });
  find("scene-choice").hidden = data.scenes.length < 2 && data.scenes[0].name.length > 60;
  choose(0);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  let size = "";
  new ResizeObserver(() => {
    const now = `${root.clientWidth} ${solid.parentElement.clientHeight}`;
    if (now !== size) { size = now; turn("start"); drawChart(); draw(); }
  }).observe(root);
  // For tests, and for whoever looks into a page: what is shown, in numbers.
  root.viewer = { state, eye, choose, show, draw, turn, clipOf, world, image: (p) => image(p), project: (p) => project(p),
    position: (clip, frame, j) => point3(clip.positions, rowOf(clip, frame), j),
    keypoint: (clip, frame, j) => point2(clip, rowOf(clip, frame), j) };
  root.dataset.ready = "yes";
}
