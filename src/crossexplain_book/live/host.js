// On a page of the book: hand a module its data and its state, and keep the state in the address, as "#name=state".
// What a page holds itself starts by itself; what lies in a script beside the pages is loaded when a reader asks for it, or
// when the address holds a state of it.
document.querySelectorAll(".ce-lab:not([data-ready])").forEach(function (box) {
  var still = box.querySelector(".ce-lab-still"), button = still.querySelector(".ce-screen"), values = {}, heard = [];
  var note = still.querySelector("[role=status]"), sign = "#" + box.dataset.name + "=", source = box.dataset.src;
  var fromAddress = function () {
    return location.hash.startsWith(sign) ? decodeURIComponent(location.hash.slice(sign.length)) : "";
  };
  var host = {
    get: function (name) { return values[name]; },
    set: function (name, value) { values[name] = value; },
    save_changes: function () { history.replaceState(null, "", sign + values.state); },
    on: function (event, call) { heard.push(call); },
    address: function () { return location.href; }
  };
  var fail = function (error) {
    note.textContent = "The live part cannot be loaded (" + error + "); what you see here is its first state.";
  };
  var bytes = function (text) { return Uint8Array.from(atob(text), function (sign) { return sign.charCodeAt(0); }); };
  var unpacked = function (text) {
    var stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer().then(function (buffer) { return new Uint8Array(buffer); });
  };
  var draw = function (module, data) {
    values.data = data;
    values.state = fromAddress() || box.dataset.state;
    return import(URL.createObjectURL(new Blob([module], { type: "text/javascript" }))).then(function (part) {
      var el = document.createElement("div");
      part.default.render({ model: host, el: el });
      still.replaceWith(el);
      if (fromAddress()) { box.scrollIntoView(); }
    });
  };
  var load = function () {
    var script = document.createElement("script"), kit;
    button.hidden = true;
    script.src = source;
    script.onload = function () {
      kit = window.crossexplainLab;
      draw(kit.module, bytes(kit.data)).catch(fail);
    };
    script.onerror = function () { fail(source + " is missing"); };
    document.head.append(script);
  };
  box.dataset.ready = "1";
  window.addEventListener("hashchange", function () {
    values.state = fromAddress() || values.state;
    heard.forEach(function (call) { call(); });
  });
  if (source) {
    button.hidden = false;
    button.addEventListener("click", load);
    if (fromAddress()) { load(); }
  } else {
    var held = box.querySelectorAll("script[type='text/plain']");
    unpacked(held[1].textContent).then(function (data) { return draw(held[0].textContent, data); }).catch(fail);
  }
});
