// On a page of the book: load the lab when a reader starts it, or when the address holds a state, and keep its state there.
document.querySelectorAll(".ce-lab:not([data-ready])").forEach(function (box) {
  var button = box.querySelector("button"), note = box.querySelector("[role=status]"), sign = "#lab=", values = {}, heard = [];
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
  var draw = function () {
    var kit = window.crossexplainLab, module = URL.createObjectURL(new Blob([kit.module], { type: "text/javascript" }));
    var signs = atob(kit.data);
    values.data = new Uint8Array(signs.length);
    for (var i = 0; i < signs.length; i++) { values.data[i] = signs.charCodeAt(i); }
    values.state = fromAddress() || box.dataset.state;
    return import(module).then(function (lab) {
      var still = box.querySelector(".ce-lab-still"), el = document.createElement("div");
      lab.default.render({ model: host, el: el });
      still.replaceWith(el);
    });
  };
  var begin = function () {
    var script = document.createElement("script");
    button.hidden = true;
    script.src = box.dataset.src;
    script.onload = function () { draw().catch(fail); };
    script.onerror = function () { fail(box.dataset.src + " is missing"); };
    document.head.append(script);
  };
  box.dataset.ready = "1";
  button.hidden = false;
  button.addEventListener("click", begin);
  window.addEventListener("hashchange", function () {
    values.state = fromAddress() || values.state;
    heard.forEach(function (call) { call(); });
  });
  if (fromAddress()) {
    begin();
    box.scrollIntoView();
  }
});
