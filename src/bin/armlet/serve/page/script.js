'use strict';
const $ = id => document.getElementById(id);
const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children);
  return element;
};

// ---- What is kept in the browser -------------------------------------------------------------------------------------------

const KEY = 'armlet';
const empty = () => ({ id: Date.now().toString(36) + Math.random().toString(36).slice(2, 6), title: '', system: '', messages: [] });
const NUMBERS = ['temperature', 'top_p', 'max_tokens', 'seed'];
const isText = value => typeof value === 'string';
const isCount = value => Number.isSafeInteger(value) && value >= 0;
const isNumber = value => Number.isFinite(value) && value >= 0;
// An object with those of the fields that are as they should be.
const pick = (object, fields) => Object.fromEntries(Object.entries(fields).filter(([key, is]) => is(object?.[key])).map(([key]) => [key, object[key]]));

// What is kept may be anything, so its shape is checked here, once. What is not right is left out.
function parse(text) {
  let kept;
  try { kept = JSON.parse(text); } catch { /* Nothing that can be read. */ }
  const chats = Array.isArray(kept?.chats) ? kept.chats.filter(c => isText(c?.id)).map(parseChat) : [];
  const settings = pick(kept?.settings, { ...Object.fromEntries(NUMBERS.map(key => [key, isNumber])), key: isText });
  return { chats, settings, current: isCount(kept?.current) && kept.current < chats.length ? kept.current : 0 };
}
function parseChat(c) {
  const messages = Array.isArray(c.messages) ? c.messages.filter(m => ['user', 'assistant'].includes(m?.role) && isText(m.content)) : [];
  return { ...empty(), ...pick(c, { id: isText, title: isText, system: isText, from: isCount }), messages: messages.map(parseMessage) };
}
function parseMessage(m) {
  const usage = isCount(m.usage?.tokens) ? { usage: pick(m.usage, { tokens: isCount, rate: isNumber, about: value => value === true }) } : {};
  return { ...pick(m, { role: isText, content: isText, thinking: isText, error: isText, note: isText }), ...usage };
}

let state = { chats: [] };
try { state = parse(localStorage.getItem(KEY)); } catch { /* The browser keeps nothing. */ }
if (!state.chats.length) state = { ...parse(null), chats: [empty()] };
const chat = () => state.chats[state.current] ?? state.chats[0];
const save = () => {
  try { localStorage.setItem(KEY, JSON.stringify(state)); } catch { say('The browser has no more room for conversations.'); }
};
// Another tab has kept something: what it has is taken over, but for a conversation that is being answered here.
addEventListener('storage', ({ key, newValue }) => {
  if (key !== KEY || !newValue) return;
  const other = parse(newValue);
  if (!other.chats.length) return;
  const own = chat();
  state.chats = other.chats.map(c => running && c.id === own.id ? own : c);
  // One that is new here is not kept yet; another that is not there was deleted.
  if (!state.chats.some(c => c.id === own.id) && (running || !own.messages.length)) state.chats.unshift(own);
  state.settings = other.settings;
  state.current = Math.max(0, state.chats.findIndex(c => c.id === own.id));
  if (chat().messages[editing?.index]?.role !== 'user') cancel();
  if (running) list(); else show();
});
const say = text => { $('status').textContent = text; };

async function copy(text) {
  // Where the page came over plain HTTP from another machine, a browser has the old way only.
  try { await navigator.clipboard.writeText(text); } catch {
    const field = make('textarea', {}, text), focused = document.activeElement;
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
    focused?.focus();
  }
  say('Copied.');
}

// ---- Markdown: elements made one by one, and text put into them as text. Nothing of a model's text is ever HTML. --------------

function inline(text) {
  const out = [];
  const pattern = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|(?<![\w*])\*([^*\s][^*\n]*)\*(?![\w*])/g;
  let from = 0;
  for (const found of text.matchAll(pattern)) {
    if (found.index > from) out.push(text.slice(from, found.index));
    const [all, code, strong, em] = found;
    out.push(code !== undefined ? make('code', {}, code) : strong !== undefined ? make('strong', {}, strong) : make('em', {}, em));
    from = found.index + all.length;
  }
  out.push(text.slice(from));
  return out;
}

function codeBlock(language, text) {
  const button = make('button', { type: 'button', value: 'code' }, 'Copy');
  return make('figure', {}, make('figcaption', {}, make('span', {}, language || 'code'), button), make('pre', { tabindex: '0' }, make('code', {}, text)));
}

function markdown(text) {
  const lines = text.split('\n'), out = [];
  let at = 0;
  const take = test => { const from = at; while (at < lines.length && test(lines[at])) at++; return lines.slice(from, at); };
  const item = /^\s*(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
  while (at < lines.length) {
    const line = lines[at], fence = line.match(/^\s*(`{3,}|~{3,})\s*([\w+#.-]*)/);
    if (fence) {
      at++;
      const indent = line.length - line.trimStart().length;
      const body = take(l => !l.trimStart().startsWith(fence[1])).map(l => l.slice(Math.min(indent, l.length - l.trimStart().length)));
      at++;
      out.push(codeBlock(fence[2], body.join('\n')));
    } else if (/^#{1,6}\s/.test(line)) {
      at++;
      out.push(make('h3', {}, ...inline(line.replace(/^#+\s*/, ''))));
    } else if (/^\s*>/.test(line)) {
      out.push(make('blockquote', {}, ...inline(take(l => /^\s*>/.test(l)).map(l => l.replace(/^\s*>\s?/, '')).join('\n'))));
    } else if (item.test(line)) {
      const ordered = item.exec(line)[2] !== undefined;
      const list = make(ordered ? 'ol' : 'ul', { start: ordered ? item.exec(line)[2] : null });
      for (const entry of take(l => !/^\s*(`{3,}|~{3,})/.test(l) && (item.test(l) || /^\s{2,}\S/.test(l)))) {
        const found = item.exec(entry);
        if (found) list.append(make('li', {}, ...inline(found[3])));
        else list.lastChild?.append('\n', ...inline(entry.trim()));
      }
      out.push(list);
    } else if (/^\s*\|.*\|\s*$/.test(line) && /^\s*\|[\s:|-]+\|\s*$/.test(lines[at + 1] ?? '')) {
      const cells = l => l.trim().slice(1, -1).split('|').map(c => c.trim());
      const rows = take(l => /^\s*\|.*\|\s*$/.test(l)).map(cells);
      const row = (cells, name) => make('tr', {}, ...cells.map(c => make(name, {}, ...inline(c))));
      out.push(make('table', {}, row(rows[0], 'th'), ...rows.slice(2).map(cells => row(cells, 'td'))));
    } else if (line.trim() === '') {
      at++;
    } else {
      const from = at++;
      take(l => l.trim() !== '' && !/^\s*(`{3,}|~{3,}|#{1,6}\s|>)/.test(l) && !item.test(l));
      out.push(make('p', {}, ...inline(lines.slice(from, at).join('\n'))));
    }
  }
  return out;
}

// ---- What is shown -------------------------------------------------------------------------------------------------------------

let context = 0, running = null;
// The message that is being edited, and what stood in the field before.
let editing = null;

// How much of the context the conversation takes, which is kept with its answers.
function meter() {
  const { tokens = 0, rate, about } = chat().messages.findLast(message => message.usage)?.usage ?? {};
  // Of an answer that is longer, the server has let the oldest tokens go.
  const used = Math.min(tokens, context || tokens);
  const share = context ? Math.min(used / context, 1) : 0;
  const picture = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  picture.setAttribute('viewBox', '0 0 100 15');
  picture.setAttribute('preserveAspectRatio', 'none');
  for (const [width, colour] of [[100, 'var(--line)'], [100 * share, 'var(--act)']]) {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    for (const [key, value] of Object.entries({ width, height: 15, rx: 2, fill: colour })) bar.setAttribute(key, value);
    picture.append(bar);
  }
  const speed = rate ? `${rate.toFixed(1)} tokens/s` : '';
  $('meter').replaceChildren(make('span', { class: 'rate' }, speed), picture, make('span', {}, context ? `${Math.round(100 * share)} %` : ''));
  $('meter').setAttribute('aria-label', `${about ? 'About ' : ''}${used} of ${context} tokens of the context are used. ${speed}`);
  $('meter').title = `K/V: ${about ? 'about ' : ''}${used} of ${context} tokens`;
}

// Makes one node like another, and touches nothing that is the same: what is selected there stays so.
function patch(old, fresh) {
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    let same = 0;
    while (same < old.length && old.data[same] === fresh.data[same]) same++;
    if (same < old.length || same < fresh.length) old.replaceData(same, old.length - same, fresh.data.slice(same));
    return;
  }
  for (const name of new Set([...old.getAttributeNames(), ...fresh.getAttributeNames()])) {
    const value = fresh.getAttribute(name);
    // Whether thoughts are open is the reader's choice.
    if (name === 'open' || value === old.getAttribute(name)) continue;
    if (value === null) old.removeAttribute(name); else old.setAttribute(name, value);
  }
  fill(old, [...fresh.childNodes]);
}
function fill(element, parts) {
  parts.forEach((part, i) => { if (element.childNodes[i]) patch(element.childNodes[i], part); else element.append(part); });
  while (element.childNodes.length > parts.length) element.lastChild.remove();
}

// Whole turns: what a user says, with what answers it.
function turns(messages) {
  const out = [];
  messages.forEach((message, index) => {
    if (message.role === 'user' || !out.length) out.push({ index, messages: [] });
    out.at(-1).messages.push(message);
  });
  return out;
}
// What failed was no answer.
const failed = message => Boolean(message?.error && !message.content);

function article(message, index) {
  const own = message.role === 'user', tools = make('div', { class: 'tools' }), text = make('div', { class: 'text' });
  const noAnswer = own && failed(chat().messages[index + 1]);
  // Not `disabled`, which would take the focus from the one that was pressed.
  const tool = name => tools.append(make('button', { type: 'button', value: name.toLowerCase(), 'aria-disabled': running ? 'true' : null }, name));
  if (own) {
    text.textContent = message.content;
    tool('Edit');
    if (noAnswer) tools.prepend(make('span', {}, 'not answered, and left out of what follows'));
  } else {
    if (message.thinking) text.append(make('details', { class: 'think', open: !message.content }, make('summary', {}, 'Thinking'), message.thinking));
    text.append(...markdown(message.content));
    if (message.error) text.append(make('p', { class: 'bad', role: 'alert' }, message.error));
    if (index === chat().messages.length - 1) tool('Regenerate');
    if (message.content) tool('Copy');
    if (message.note) tools.append(make('span', {}, message.note));
  }
  return make('article', { class: noAnswer ? 'user failed' : message.role, 'data-index': index }, make('h2', {}, own ? 'You' : 'Answer'), text, tools);
}

function list() {
  fill($('list'), state.chats.map((c, i) => make('li', {},
    make('button', { type: 'button', 'aria-current': i === state.current ? 'true' : null }, c.title || 'New conversation'),
    make('button', { type: 'button', 'aria-label': `Delete ${c.title || 'this conversation'}` }, '\u00d7'))));
}

function mark() {
  $('editing').hidden = !editing;
  for (const shown of $('log').querySelectorAll('article')) shown.classList.toggle('goes', editing !== null && shown.dataset.index >= editing.index);
}

const LEFT = 'The context is full: the model no longer has what is above.';

// Who reads the end goes on to read the end.
function follow(change) {
  const log = $('log'), isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  change();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

let shownId = '';
function show() {
  const { id, messages, from } = chat();
  const hello = make('p', { id: 'hello' }, 'Everything you write stays between this browser and the board that runs the model.');
  const shown = messages.map(article);
  if (from > 0 && from < shown.length) shown.splice(from, 0, make('p', { class: 'left' }, LEFT));
  if (id !== shownId) $('log').replaceChildren();
  shownId = id;
  follow(() => fill($('log'), shown.length ? shown : [hello]));
  mark();
  list();
  meter();
  $('go').textContent = running ? 'Stop' : 'Send';
}

// ---- What can be done ------------------------------------------------------------------------------------------------------------

function open(i) { stop(); cancel(); state.current = i; save(); show(); menu(false); $('text').focus(); }
function remove(i) {
  if (i === state.current) { stop(); cancel(); }
  const [gone] = state.chats.splice(i, 1), another = state.chats.length ? null : empty();
  if (another) state.chats.push(another);
  if (state.current > i || state.current === state.chats.length) state.current--;
  save(); show(); notice(gone, i, another); focusOn(i);
}
// The conversation that is in a place of the list, or the last one.
function focusOn(i) { ($('list').children[i] ?? $('list').lastChild).firstChild.focus(); }
// A conversation that was deleted can be had back; the one that was made in its place goes, if nothing is in it.
function notice(gone, i, another) {
  if (!gone.messages.length) return $('undo').replaceChildren();
  const undo = () => {
    stop(); cancel();
    if (another && !another.messages.length) state.chats = state.chats.filter(c => c.id !== another.id);
    state.current = Math.min(i, state.chats.length);
    state.chats.splice(state.current, 0, gone);
    $('undo').replaceChildren();
    save(); show(); focusOn(state.current);
  };
  $('undo').replaceChildren(make('span', {}, `Deleted: ${gone.title}`), make('button', { type: 'button', onclick: undo }, 'Undo'));
}
function fresh() {
  const i = state.chats.findIndex(c => !c.messages.length);
  if (i < 0) { state.chats.unshift(empty()); open(0); } else open(i);
}
function edit(index) {
  cancel();
  editing = { index, draft: $('text').value };
  write(chat().messages[index].content);
  $('text').focus();
  say($('editing').firstChild.textContent);
}
// Until an edited message is sent, nothing has changed.
function cancel() {
  if (!editing) return;
  const { index, draft } = editing;
  editing = null;
  write(draft);
  $('log').querySelector(`[data-index="${index}"] button`)?.focus();
}
function write(text) { $('text').value = text; mark(); size(); }
function regenerate() { cancel(); chat().messages.pop(); save(); answer(); }
function stop() { running?.abort(); }
function menu(isOpen) { $('side').classList.toggle('open', isOpen); $('menu').setAttribute('aria-expanded', isOpen); }
// On a wide screen, the list is always there, and its button never.
function isMenuOpen() { return $('side').classList.contains('open') && $('menu').offsetWidth > 0; }
function isOfMenu(element) { return $('side').contains(element) || $('menu').contains(element); }
function size() { const t = $('text'); t.style.height = 'auto'; t.style.height = `${t.scrollHeight + 2}px`; }

const acts = {
  edit,
  regenerate,
  copy: index => copy(chat().messages[index].content),
  code: (index, button) => copy(button.closest('figure').querySelector('code').textContent),
};

function headers() {
  const key = state.settings.key;
  return { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const lines = text.split('\n');
    text = lines.pop();
    for (const line of lines) {
      if (!line.startsWith('data: ')) continue;
      if (line === 'data: [DONE]') return;
      yield JSON.parse(line.slice(6));
    }
  }
}

// What the server is asked, and its response. What does not fit into its context is asked without the older half of its turns, so
// that there is room for the answer and for what comes next; the system prompt stays.
async function ask(own, signal) {
  const given = Object.fromEntries(NUMBERS.filter(k => state.settings[k] !== undefined).map(k => [k, state.settings[k]]));
  const system = own.system ? [{ role: 'system', content: own.system }] : [];
  let from = own.from ??= 0;
  let sent = turns(own.messages).filter((turn, i, all) => i === all.length - 1 || (turn.index >= from && !turn.messages.some(failed)));
  for (;;) {
    const messages = [...system, ...sent.flatMap(turn => turn.messages).map(({ role, content }) => ({ role, content }))];
    const body = JSON.stringify({ messages, stream: true, stream_options: { include_usage: true }, ...given });
    const response = await fetch('v1/chat/completions', { method: 'POST', headers: headers(), body, signal });
    if (response.ok) return { response, from, prompt: guess(from === own.from ? sent.flatMap(turn => turn.messages) : messages) };
    const error = (await response.json().catch(() => null))?.error;
    if (error?.code !== 'context_length_exceeded' || sent.length < 2) throw new Error(error?.message ?? `The server said ${response.status}.`);
    sent = newer(sent);
    from = sent[0].index;
  }
}

// How many tokens messages are, about: the server says it when an answer has ended. One of the conversation counts all before it.
function guess(messages) {
  const known = messages.findLastIndex(message => message.usage);
  return messages.slice(known + 1).reduce((sum, { content }) => sum + 5 + Math.ceil(content.length / 4), messages[known]?.usage.tokens ?? 0);
}

// Counts the tokens of an answer from what has come: a piece is about one.
function counter(message, prompt) {
  let pieces = 0, first;
  message.usage = { tokens: prompt, about: true };
  return ({ choices, usage, timings }) => {
    const delta = choices?.[0]?.delta, now = performance.now(), known = message.usage;
    if (delta?.content || delta?.reasoning_content) {
      pieces++;
      first ??= now;
      known.tokens = prompt + pieces;
      if (pieces > 8) known.rate = (pieces - 1) / (now - first) * 1e3;
    }
    if (timings?.predicted_per_second) known.rate = timings.predicted_per_second;
    if (usage) message.usage = { tokens: usage.total_tokens, rate: known.rate };
  };
}

// The newest turns that have half of the text, and at least the last one.
function newer(turns) {
  const length = turn => turn.messages.reduce((sum, { content }) => sum + content.length, 0);
  let room = turns.reduce((sum, turn) => sum + length(turn), 0) / 2, first = turns.length - 1;
  room -= length(turns[first]);
  while (first > 1 && length(turns[first - 1]) <= room) room -= length(turns[--first]);
  return turns.slice(first);
}

async function answer() {
  const own = chat(), message = { role: 'assistant', content: '' }, control = new AbortController();
  const asked = ask(own, control.signal);
  own.messages.push(message);
  running = control;
  show();
  $('log').scrollTop = $('log').scrollHeight;
  say('The answer begins.');
  let last = 0;
  const draw = () => {
    last = performance.now();
    if (chat() !== own) return;
    meter();
    follow(() => patch($('log').lastChild, article(message, own.messages.length - 1)));
  };
  try {
    const { response, from, prompt } = await asked;
    if (from > own.from) { own.from = from; if (chat() === own) show(); say(LEFT); }
    const count = counter(message, prompt);
    for await (const event of events(response)) {
      count(event);
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices?.[0];
      message.content += choice?.delta?.content ?? '';
      if (choice?.delta?.reasoning_content) message.thinking = (message.thinking ?? '') + choice.delta.reasoning_content;
      if (choice?.finish_reason === 'length') message.note = 'cut off: the longest answer, or the context, is reached';
      if (performance.now() - last > 60) draw();
    }
    say('The answer is complete.');
  } catch (error) {
    if (error.name === 'AbortError') message.note = 'stopped';
    else message.error = error instanceof TypeError ? 'The server cannot be reached.' : error.message;
    say(message.note ?? message.error);
  }
  if (running === control) running = null;
  save();
  show();
  const thoughts = message.content && chat() === own && $('log').lastChild.querySelector('details');
  if (thoughts) thoughts.open = false;
}

$('say').addEventListener('submit', event => {
  event.preventDefault();
  if (running) return stop();
  const text = $('text').value.trim();
  if (!text) return;
  const own = chat();
  if (editing) own.messages.length = editing.index;
  if (own.from >= own.messages.length) own.from = 0;
  const draft = editing?.draft ?? '';
  editing = null;
  own.messages.push({ role: 'user', content: text });
  own.title ||= text.slice(0, 60);
  $('undo').replaceChildren();
  write(draft); save(); answer();
});
$('text').addEventListener('keydown', event => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); if (!running) $('say').requestSubmit(); }
});
$('text').addEventListener('input', size);
document.addEventListener('keydown', event => {
  if (event.key !== 'Escape' || event.isComposing || $('settings').open) return;
  if (isMenuOpen()) { menu(false); $('menu').focus(); } else if (editing) cancel(); else stop();
});
$('cancel').addEventListener('click', cancel);
$('log').addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button && !button.hasAttribute('aria-disabled')) acts[button.value](Number(button.closest('article').dataset.index), button);
});
$('list').addEventListener('click', event => {
  const button = event.target.closest('button'), entry = event.target.closest('li');
  if (button) (button === entry.firstChild ? open : remove)([...$('list').children].indexOf(entry));
});
$('new').addEventListener('click', fresh);
$('menu').addEventListener('click', () => {
  menu(!isMenuOpen());
  if (isMenuOpen()) $('new').focus();
});
// A tap beside the list closes it, and does nothing else: it does not even take the focus there.
for (const kind of ['mousedown', 'click']) document.addEventListener(kind, event => {
  if (!isMenuOpen() || isOfMenu(event.target)) return;
  event.preventDefault();
  event.stopPropagation();
  if (kind === 'click') { menu(false); $('menu').focus(); }
}, true);
document.addEventListener('focusin', event => { if (isMenuOpen() && !isOfMenu(event.target)) menu(false); });
$('set').addEventListener('click', () => {
  const form = $('settings').querySelector('form');
  for (const field of form.elements) if (field.name) field.value = field.name === 'system' ? chat().system : state.settings[field.name] ?? '';
  $('settings').showModal();
});
$('settings').addEventListener('close', () => {
  const form = $('settings').querySelector('form');
  for (const field of form.elements) {
    if (!field.name) continue;
    if (field.name === 'system') chat().system = field.value.trim();
    else if (field.value === '' || !field.validity.valid) delete state.settings[field.name];
    else state.settings[field.name] = field.type === 'number' ? Number(field.value) : field.value;
  }
  save(); about();
});

async function about() {
  try {
    const response = await fetch('v1/models', { headers: headers() });
    if (!response.ok) throw new Error(response.status === 401 ? 'The server asks for an API key: Settings.' : `The server said ${response.status}.`);
    const model = (await response.json()).data[0];
    context = model.meta?.n_ctx ?? 0;
    $('model').textContent = model.id;
    document.title = `${model.id} \u2013 armlet`;
    meter();
  } catch (error) { $('model').textContent = error instanceof TypeError ? 'The server cannot be reached.' : error.message; }
}

show();
about();
