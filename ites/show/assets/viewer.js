// Draws one viewer: `root` is its <section>, `data` what ites/show/viewer.py packed.
function startViewer(root, data) {
  const find = (name) => root.querySelector("." + name);
  const [flat, solid] = [find("flat"), find("solid")];
  const [slider, play, picker, speed] = ["slider", "play", "picker", "speed"].map(find);
  const truthBox = find("truth");
  const sides = Object.keys(data.bones);
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["toImage"] };
  const camera = JSON.stringify(data.solid.layout.scene.camera); // Plotly writes into its layout
  const state = { clip: null, frame: 0, playing: false, held: false, busy: false, clock: 0 };

  // 16-bit whole numbers times `step`, little-endian, base64; the least stands for what is unknown.
  function unpack(packed) {
    if (!packed) return null;
    const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => {
      const whole = view.getInt16(2 * i, true);
      return whole === -32768 ? NaN : whole * packed.step;
    });
  }

  const joint = (values, size, frame, j) => {
    const at = (frame * data.joints + j) * size;
    return values.subarray(at, at + size);
  };

  // Coordinates of the bones of one side as one broken line; `map` turns a joint into plot axes.
  function lines(values, size, frame, bones, map) {
    const axes = Array.from({ length: size }, () => []);
    for (const bone of values ? bones : []) {
      for (const j of bone) map(joint(values, size, frame, j)).forEach((v, k) => axes[k].push(Number.isNaN(v) ? null : v));
      axes.forEach((axis) => axis.push(null));
    }
    return axes;
  }

  const asIs = (p) => [p[0], p[1]];
  const upright = (p) => [p[0], p[2], -p[1]]; // right, away from the camera, up

  const doubtful = (frame) => state.clip.confidence !== null && state.clip.confidence[frame] < data.doubt;

  // The slider's doubtful frames as a gradient with sharp edges.
  function marks() {
    const { frames } = state.clip, stops = [];
    for (let start = 0; start < frames; ) {
      let end = start + 1;
      while (end < frames && doubtful(end) === doubtful(start)) end++;
      const colour = doubtful(start) ? "var(--doubt)" : "transparent";
      stops.push(`${colour} ${(100 * start) / frames}% ${(100 * end) / frames}%`);
      start = end;
    }
    return `linear-gradient(to right, ${stops.join(", ")})`;
  }

  function draw() {
    const { clip, frame } = state;
    state.busy = true;
    const image = sides.map((side) => lines(clip.keypoints, 2, frame, data.bones[side], asIs));
    const space = sides.map((side) => lines(clip.positions, 3, frame, data.bones[side], upright));
    const shown = clip.truth && truthBox.checked ? clip.truth : null;
    space.push(lines(shown, 3, frame, sides.flatMap((side) => data.bones[side]), upright));
    const jobs = [
      Plotly.restyle(flat, { x: image.map((a) => a[0]), y: image.map((a) => a[1]) }),
      Plotly.restyle(solid, {
        x: space.map((a) => a[0]), y: space.map((a) => a[1]), z: space.map((a) => a[2]),
        opacity: [...sides.map(() => (doubtful(frame) ? 0.35 : 1)), 0.75],
      }),
    ];
    slider.value = frame;
    find("time").textContent =
      `frame ${frame + 1} of ${clip.frames}  ·  ${(frame / clip.fps).toFixed(2)} s  ·  ${+clip.fps.toFixed(2)} fps`;
    const told = (values) => values && !Number.isNaN(values[frame]);
    find("error").textContent = told(clip.error) ? `off by ${Math.round(clip.error[frame])} mm in this frame, ${clip.mean} mm on average` : "";
    const sure = told(clip.confidence) && `depth's sign ${Math.round(100 * clip.confidence[frame])}% sure`;
    find("sure").textContent = sure || "";
    return Promise.all(jobs).finally(() => { state.busy = false; });
  }

  function choose(index) {
    const source = data.clips[index];
    state.clip = {
      ...source,
      keypoints: unpack(source.keypoints), positions: unpack(source.positions),
      truth: unpack(source.truth), error: unpack(source.error),
      confidence: unpack(source.confidence),
    };
    state.frame = 0;
    slider.max = source.frames - 1;
    find("about").textContent = source.about;
    find("truth-key").hidden = !source.truth;
    find("doubt-key").hidden = !source.confidence;
    find("marks").style.background = marks();
    const [x0, x1, y0, y1] = source.window;
    Plotly.relayout(flat, { "xaxis.range": [x0, x1], "yaxis.range": [y1, y0], shapes: source.shapes });
    const [half, bottom, top] = source.box;
    const wide = (1.3 * 2 * half) / (top - bottom);
    Plotly.relayout(solid, {
      "scene.xaxis.range": [-half, half], "scene.yaxis.range": [-half, half], "scene.zaxis.range": [bottom, top],
      "scene.aspectratio": { x: wide, y: wide, z: 1.3 },
    });
    return draw();
  }

  function tick() {
    if (!state.playing) return;
    const now = performance.now();
    const step = ((now - state.clock) / 1000) * state.clip.fps * Number(speed.value);
    if (step >= 1 && !state.busy && !state.held) {
      state.frame = (state.frame + Math.floor(step)) % state.clip.frames;
      state.clock = now;
      draw();
    }
    requestAnimationFrame(tick);
  }

  function setPlaying(on) {
    state.playing = on;
    play.textContent = on ? "❚❚ Pause" : "▶ Play";
    state.clock = performance.now();
    if (on) requestAnimationFrame(tick);
  }

  play.addEventListener("click", () => setPlaying(!state.playing));
  slider.addEventListener("input", () => { state.frame = Number(slider.value); draw(); });
  picker.addEventListener("change", () => choose(Number(picker.value)));
  truthBox.addEventListener("change", draw);
  find("reset").addEventListener("click", () => Plotly.relayout(solid, { "scene.camera": JSON.parse(camera) }));
  // A redraw in the middle of a drag would throw the view back.
  solid.addEventListener("pointerdown", () => { state.held = true; }, true);
  window.addEventListener("pointerup", () => { state.held = false; state.clock = performance.now(); }, true);

  const ready = Promise.all([
    Plotly.newPlot(flat, data.flat.data, data.flat.layout, config),
    Plotly.newPlot(solid, data.solid.data, data.solid.layout, config),
  ]);
  return ready.then(() => choose(0)).then(() => { root.dataset.ready = "yes"; });
}
