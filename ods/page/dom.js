// The few ways in which the page is changed. Text goes in as text alone, never as markup: pods send what they like.
// Nothing is touched that has not changed, so that a selection, a scroll position or the focus stays where it is.

export function element(tag, { className = "", text = "", attributes = {} } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  for (const [name, content] of Object.entries(attributes)) made.setAttribute(name, content);
  made.append(...children);
  return made;
}

/** A name that may be broken after what separates its words; its text is the name alone. */
export function breakable(name) {
  return name.split(/(?<=[_.:/-])/).flatMap((part, at) => (at === 0 ? [part] : [element("wbr"), part]));
}

export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function setHidden(target, isHidden) {
  if (target.hidden !== isHidden) target.hidden = isHidden;
}

export function setData(target, name, content) {
  if (target.dataset[name] !== String(content)) target.dataset[name] = String(content);
}

/** Children that belong to items by their key: made once, updated, put in the items' order, removed with their item. */
export class KeyedList {
  constructor(container, { key, create, update, remove = () => {} }) {
    this.container = container;
    this.key = key;
    this.create = create;
    this.update = update;
    this.remove = remove;
    this.children = new Map();
  }

  show(items) {
    const gone = new Set(this.children.keys());
    let at = this.container.firstElementChild;
    for (const item of items) {
      const key = this.key(item);
      gone.delete(key);
      const child = this.child(key, item);
      this.update(child, item);
      if (child === at) at = at.nextElementSibling;
      else this.container.insertBefore(child, at);
    }
    for (const key of gone) {
      this.remove(this.children.get(key), key);
      this.children.get(key).remove();
      this.children.delete(key);
    }
  }

  child(key, item) {
    if (!this.children.has(key)) this.children.set(key, this.create(item));
    return this.children.get(key);
  }
}

/** A description list of figures: `show` takes [name, label, text, note, tone] and keeps the elements. */
export class Figures {
  constructor(container) {
    this.list = new KeyedList(container, {
      key: ([name]) => name,
      create: ([name, label]) =>
        element("div", { attributes: { "data-figure": name } }, element("dt", { text: label }), element("dd"),
          element("dd", { className: "note" })),
      update: (child, [, , text, note = "", tone = ""]) => {
        const [, figure, beside] = child.children;
        setText(figure, text);
        setText(beside, note);
        setHidden(beside, note === "");
        setData(child, "tone", tone);
      },
    });
  }

  show(figures) {
    this.list.show(figures);
  }
}
