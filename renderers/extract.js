// Runs in an isolated world of the page, scripts of the page itself being off. Two functions, called one after the other.
(() => {
  // --- 1. Put a parsed, disarmed document in place ---------------------------------------------------------------
  // DOMParser is Chromium's own parser, so nothing can be read differently later; its document is inert: it loads
  // nothing and runs nothing while the dangerous parts are taken out.
  const GONE = 'script,noscript,iframe,frame,frameset,object,embed,applet,portal,base,meta[http-equiv],link,template,' +
    'audio,video,source,track,dialog:not([open]),animate,animateMotion,animateTransform,set';
  // Text that is in no text node must not be in the picture either: form values, generated content, numbers of
  // lists. Layout is kept: the text only turns transparent.
  const STYLE = `
    *, *::before, *::after { animation: none !important; transition: none !important; pointer-events: auto !important;
      hyphens: manual !important; text-overflow: clip !important; caret-color: transparent !important;
      scroll-behavior: auto !important; }
    *::before, *::after, input, textarea, select, meter, progress, ::placeholder, .gm-numbered::marker {
      color: transparent !important; -webkit-text-fill-color: transparent !important;
      -webkit-text-stroke: 0 !important; text-shadow: none !important; }
    input, textarea, select { background-image: none !important; }
    img:not([src]), input[type=image]:not([src]) { visibility: hidden !important; }`;

  function disarm(parsed) {
    for (const el of parsed.querySelectorAll(GONE)) el.remove();
    for (const el of parsed.querySelectorAll('img,input[type=image],image')) {
      const source = el.getAttribute('src') || el.getAttribute('href') || el.getAttribute('xlink:href') || '';
      if (!/^data:image\/(png|jpe?g|gif|webp|bmp|avif)[;,]/i.test(source)) {
        // It will never load; the browser would draw a broken-image sign and the alternative text in its place.
        for (const name of ['src', 'srcset', 'alt', 'href', 'xlink:href', 'title']) el.removeAttribute(name);
      }
      el.removeAttribute('srcset');
      el.removeAttribute('loading');
    }
    for (const el of parsed.querySelectorAll('marquee')) el.outerHTML = el.outerHTML.replace(/^<marquee/i, '<div').replace(/marquee>$/i, 'div>');
    for (const el of parsed.querySelectorAll('style')) el.textContent = frozen(el.textContent);
    for (const el of parsed.querySelectorAll('[style]')) el.setAttribute('style', frozen(el.getAttribute('style')));
    for (const el of parsed.querySelectorAll('[autofocus]')) el.removeAttribute('autofocus');
    for (const el of parsed.querySelectorAll('[contenteditable]')) el.removeAttribute('contenteditable');
  }

  // The viewport will be stretched to the height of the page; what is measured by it must not stretch along.
  function frozen(css) {
    return css.replace(/(\d*\.?\d+)[dsl]?vh\b/gi, (_, share) => `${share * innerHeight / 100}px`);
  }

  const heights = new Map();

  // Percentages find their way to the viewport too (of every box in quirks mode): what has grown is put back.
  function settle() {
    for (const [el, height] of heights) {
      if (Math.abs(el.getBoundingClientRect().height - height) < 1) continue;
      for (const [name, value] of [['height', `${height}px`], ['min-height', '0'], ['max-height', 'none'], ['box-sizing', 'border-box']])
        el.style.setProperty(name, value, 'important');
    }
    return size();
  }

  function freezeRoots() {
    for (const el of [document.documentElement, document.body]) {
      const box = el && el.getBoundingClientRect();
      if (box && Math.abs(box.top + scrollY + box.bottom + scrollY - innerHeight) < 2)
        el.style.setProperty('height', getComputedStyle(el).height, 'important');
    }
  }

  // What the page's own scripts would have undone by now: a page is hidden only until it is ready.
  function unveil() {
    for (const el of [document.documentElement, document.body]) {
      const css = el && getComputedStyle(el);
      if (!css) continue;
      if (css.visibility !== 'visible') el.style.setProperty('visibility', 'visible', 'important');
      if (parseFloat(css.opacity) < 1) el.style.setProperty('opacity', '1', 'important');
      if (css.display === 'none') el.style.setProperty('display', 'block', 'important');
    }
  }

  // The document, not in place yet, and the addresses of the style sheets and pictures that it wants.
  let parsed;
  const styles_wanted = new Map(), pictures_wanted = new Map();

  function parse(html, address) {
    parsed = new DOMParser().parseFromString(html, 'text/html');
    if (!address) return {styles: [], pictures: []};
    const absolute = (reference, base) => { try { return new URL(reference, base).href; } catch { return ''; } };
    const base = absolute(parsed.querySelector('base[href]')?.getAttribute('href') || '', address) || address;
    for (const el of parsed.querySelectorAll('link[rel~=stylesheet i][href]:not([rel~=alternate i])'))
      styles_wanted.set(el, absolute(el.getAttribute('href').trim(), base));
    for (const el of parsed.querySelectorAll('img')) {
      // Scripts put late what comes into view late.
      const source = ['data-src', 'data-original', 'data-lazy-src', 'src'].map(name => el.getAttribute(name)).find(Boolean);
      if (source && !source.startsWith('data:')) pictures_wanted.set(el, absolute(source.trim(), base));
    }
    return {styles: [...new Set(styles_wanted.values())], pictures: [...new Set(pictures_wanted.values())].slice(0, 500)};
  }

  function inline(found) {
    for (const [el, address] of styles_wanted) {
      if (!(address in found.styles)) continue;
      const style = parsed.createElement('style');
      style.textContent = found.styles[address];
      if (el.media) style.media = el.media;
      el.replaceWith(style);
    }
    for (const [el, address] of pictures_wanted)
      if (address in found.pictures) el.setAttribute('src', found.pictures[address]);
  }

  async function put(found) {
    inline(found);
    disarm(parsed);
    const style = parsed.createElement('style');
    style.textContent = STYLE;
    parsed.documentElement.append(style);
    document.replaceChild(document.adoptNode(parsed.documentElement), document.documentElement);
    if (!document.body) document.documentElement.append(document.createElement('body'));
    unveil();
    for (const item of document.querySelectorAll('li')) {
      const kind = getComputedStyle(item).listStyleType;
      if (!['none', 'disc', 'circle', 'square'].includes(kind)) item.classList.add('gm-numbered');
    }
    await Promise.all([...document.querySelectorAll('img[src]')].map(el => el.decode().catch(() => {})));
    return {coloured: !!document.querySelector('[bgcolor],[color],[text],[style*=color],[style*=background]') ||
      [...document.querySelectorAll('style')].some(el => el !== style && /color|background/i.test(el.textContent))};
  }

  // A style sheet before all others of the page. Returns the font size of most of the text and the share of it that is
  // full-width.
  function wear(css) {
    const style = document.createElement('style');
    style.textContent = css;
    document.head ? document.head.prepend(style) : document.documentElement.prepend(style);
    const sizes = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let wide = 0, all = 0;
    for (let node = walker.nextNode(), count = 0; node && count < 5000; node = walker.nextNode(), count++) {
      const text = node.data.trim();
      if (!text || !node.parentElement.checkVisibility()) continue;
      const size = parseFloat(getComputedStyle(node.parentElement).fontSize) || 16;
      sizes.set(size, (sizes.get(size) || 0) + text.length);
      wide += (text.match(/[\u2e80-\ud7ff\uf900-\ufaff\uff00-\uffef]/g) || []).length;
      all += text.length;
    }
    let half = all / 2, found = 16;
    for (const [size, count] of [...sizes].sort((a, b) => a[0] - b[0])) {
      found = size;
      if ((half -= count) <= 0) break;
    }
    return {em: found, wide: all ? wide / all : 0};
  }

  // The viewport will be widened to what sticks out of the page, on the left where it runs to the left; the page itself
  // keeps its width.
  function hold(wide) {
    const root = document.documentElement;
    const leftwards = getComputedStyle(document.body || root).direction === 'rtl';
    for (const [name, value] of [['width', `${innerWidth}px`], ['min-width', '0'], ['max-width', 'none'],
                                 ['box-sizing', 'border-box'], ['margin-right', '0'],
                                 ['margin-left', leftwards ? `${wide - innerWidth}px` : '0']])
      root.style.setProperty(name, value, 'important');
  }

  // The viewport has its final width: what may not grow with its height is noted.
  function fit() {
    freezeRoots();
    for (const el of [...document.body.querySelectorAll('*')].slice(0, 20000)) {
      const height = el.getBoundingClientRect().height;
      if (height > 100) heights.set(el, height);
    }
    return size();
  }

  function size() {
    const root = document.documentElement, body = document.body;
    const width = Math.max(root.scrollWidth, body ? body.scrollWidth : 0);
    const height = Math.max(root.scrollHeight, body ? body.scrollHeight : 0);
    return {width, height, lang: root.lang || '', title: document.title.slice(0, 500)};
  }

  // --- 2. Read the visible lines ----------------------------------------------------------------------------------
  const styles = new Map(), opacities = new Map(), blocks = new Map();

  function styleOf(el) {
    let found = styles.get(el);
    if (found) return found;
    const css = getComputedStyle(el);
    found = {
      size: parseFloat(css.fontSize) || 16,
      transform: css.textTransform,
      vertical: css.writingMode !== 'horizontal-tb',
      upright: css.textOrientation === 'upright',
      counterclockwise: css.writingMode === 'sideways-lr',
      pre: css.whiteSpaceCollapse === 'preserve',
      visible: el.checkVisibility({opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true}),
      linear: linearOf(el, css),
      block: blockOf(el, css),
    };
    styles.set(el, found);
    return found;
  }

  // The linear part of all transforms on the way up, as [a, b, c, d]; null when there is none but scaling and moving.
  function linearOf(el, css) {
    let own = null;
    if (css.transform !== 'none' || css.rotate !== 'none') {
      const m = new DOMMatrix(css.transform === 'none' ? '' : css.transform);
      if (css.rotate !== 'none') m.multiplySelf(new DOMMatrix(`rotate(${css.rotate})`));
      own = [m.a, m.b, m.c, m.d];
    }
    const above = el.parentElement ? styleOf(el.parentElement).linear : null;
    if (!own) return above;
    if (above) own = [above[0] * own[0] + above[2] * own[1], above[1] * own[0] + above[3] * own[1],
                      above[0] * own[2] + above[2] * own[3], above[1] * own[2] + above[3] * own[3]];
    const turned = Math.abs(own[1]) > 1e-3 || Math.abs(own[2]) > 1e-3 || own[0] < 0 || own[3] < 0;
    return turned || above ? own : null;
  }

  // A number for the nearest ancestor that is not inline: only pieces of one block are pieces of one line.
  function blockOf(el, css) {
    if (css.display !== 'inline' && css.display !== 'contents') {
      if (!blocks.has(el)) blocks.set(el, blocks.size);
      return blocks.get(el);
    }
    return el.parentElement ? styleOf(el.parentElement).block : -1;
  }

  function isOpaque(el) {
    let found = opacities.get(el);
    if (found === undefined) {
      const css = getComputedStyle(el);
      const colour = css.backgroundColor.match(/[\d.]+/g) || [0, 0, 0, 0];
      const alpha = colour.length > 3 ? parseFloat(colour[3]) : 1;
      // Pictures of other addresses are missing and cover nothing.
      const painted = alpha > 0.3 || /gradient\(|url\("data:/.test(css.backgroundImage) || el.naturalWidth > 0;
      found = painted && parseFloat(css.opacity) > 0.3;
      opacities.set(el, found);
    }
    return found;
  }

  // Hit testing knows clips, overflow, stacking and borders; whatever lies above the text must let it through.
  function shows(parent, x, y) {
    for (const el of document.elementsFromPoint(x, y)) {
      if (el === parent || parent.contains(el)) return true;
      if (isOpaque(el)) return false;
    }
    return false;
  }

  const range = document.createRange();

  function boxOf(node, from, to) {
    range.setStart(node, from);
    range.setEnd(node, to);
    return range.getBoundingClientRect();
  }

  // The line boxes of a text node: fragments side by side on one line (from bidirectional text) become one.
  function lineBoxes(node, vertical) {
    range.selectNodeContents(node);
    const boxes = [];
    for (const r of range.getClientRects()) {
      if (r.width <= 0 || r.height <= 0) continue;
      const last = boxes[boxes.length - 1];
      const same = last && (vertical ? Math.abs(last.left - r.left) < 1 && Math.abs(last.right - r.right) < 1
                                     : Math.abs(last.top - r.top) < 1 && Math.abs(last.bottom - r.bottom) < 1);
      if (same) {
        last.left = Math.min(last.left, r.left); last.right = Math.max(last.right, r.right);
        last.top = Math.min(last.top, r.top); last.bottom = Math.max(last.bottom, r.bottom);
      } else boxes.push({left: r.left, top: r.top, right: r.right, bottom: r.bottom});
    }
    return boxes;
  }

  // The index of the line box that holds the character at `offset` or, where that one is collapsed, the next after it.
  function lineOf(node, offset, boxes, low) {
    for (let at = offset; at < node.length && at < offset + 400; at++) {
      range.setStart(node, at);
      range.setEnd(node, at + 1);
      const own = [...range.getClientRects()].filter(r => r.width > 0 && r.height > 0);
      if (!own.length) continue;
      const r = own[own.length - 1];  // the character after a soft hyphen brings the hyphen's box along
      const x = (r.left + r.right) / 2, y = (r.top + r.bottom) / 2;
      for (let i = low; i < boxes.length; i++) {
        const b = boxes[i];
        if (x >= b.left - 0.5 && x <= b.right + 0.5 && y >= b.top - 0.5 && y <= b.bottom + 0.5) return i;
      }
      return low;
    }
    return boxes.length;
  }

  // Where each line begins in the node's text, by bisection: lines follow each other in the order of the text.
  function breaks(node, boxes) {
    const starts = [0];
    for (let i = 1; i < boxes.length; i++) {
      let low = starts[i - 1], high = node.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (lineOf(node, middle, boxes, i - 1) >= i) high = middle; else low = middle + 1;
      }
      starts.push(low);
    }
    starts.push(node.length);
    return starts;
  }

  function transformed(text, how) {
    if (how === 'uppercase') return text.toUpperCase();
    if (how === 'lowercase') return text.toLowerCase();
    if (how === 'capitalize') return text.replace(/(^|[^\p{L}\p{N}\p{M}'’])(\p{L})/gu, (_, a, b) => a + b.toUpperCase());
    return text;
  }

  // Points along the middle of a box, a little inside its ends.
  function probes(box, vertical) {
    const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
    const inset = Math.min(2, (vertical ? box.bottom - box.top : box.right - box.left) / 4);
    return vertical ? [[x, box.top + inset], [x, y], [x, box.bottom - inset]]
                    : [[box.left + inset, y], [x, y], [box.right - inset, y]];
  }

  // The part of a piece of text that shows: characters at either end may be clipped away.
  function trim(node, from, to, parent) {
    const visible = at => {
      const r = boxOf(node, at, at + 1);
      return r.width > 0 && shows(parent, (r.left + r.right) / 2, (r.top + r.bottom) / 2);
    };
    while (from < to && !visible(from)) from++;
    while (to > from && !visible(to - 1)) to--;
    return [from, to];
  }

  // White space of its own node, between two pieces of one block, that takes room on their line.
  function shownBlank(node, block, pieces) {
    if (!pieces.length || pieces[pieces.length - 1][6] !== block) return false;
    range.selectNodeContents(node);
    return range.getBoundingClientRect().width > 0;
  }

  // How much of a page that runs to the left lies left of the viewport: pictures are measured from there.
  function leftOut() {
    scrollTo({left: -1e7, behavior: 'instant'});
    const left = -scrollX;
    scrollTo({left: 0, behavior: 'instant'});
    return left;
  }

  function read(width, height, most) {
    const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
    const pieces = [];
    let hidden = 0, characters = 0, blank = null;
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (!parent) continue;
      if (!/\S/.test(node.data)) { blank = node; continue; }
      const css = styleOf(parent), before = blank && shownBlank(blank, css.block, pieces) ? ' ' : '';
      blank = null;
      const boxes = lineBoxes(node, css.vertical);
      if (!boxes.length) continue;
      if (!css.visible || boxes[0].top >= height) { hidden += boxes.length; continue; }
      const starts = boxes.length > 1 ? breaks(node, boxes) : [0, node.length];
      for (let i = 0; i < boxes.length; i++) {
        let box = boxes[i], from = starts[i], to = starts[i + 1];
        if (box.right <= 0 || box.bottom <= 0 || box.left >= width || box.top >= height) { hidden++; continue; }
        const seen = probes(box, css.vertical).filter(([x, y]) => x < width && y < height && shows(parent, x, y)).length;
        if (seen === 0) { hidden++; continue; }
        if (seen < 3) {
          [from, to] = trim(node, from, to, parent);
          if (from === to) { hidden++; continue; }
          box = boxOf(node, from, to);
        }
        let text = node.data.slice(from, to);
        const hyphen = i + 1 < boxes.length && (text.endsWith('\u00ad') || node.data[to] === '\u00ad');
        text = transformed(text.replaceAll('\u00ad', ''), css.transform) + (hyphen ? '-' : '');
        characters += text.length;
        if (characters > most) return {pieces, hidden, overflow: true};
        pieces.push([(i ? '' : before) + text, box.left, box.top, box.right, box.bottom, css.size, css.block,
                     css.vertical ? (css.upright ? 1 : css.counterclockwise ? 3 : 2) : 0, css.linear]);
      }
    }
    return {pieces, hidden, overflow: false, left: leftOut()};
  }

  globalThis.gristmill = {parse, put, wear, hold, fit, settle, read, text: () => document.body ? document.body.innerText : ''};
  return true;
})()
