// Drives the page of `armlet serve` in Chromium: node page.mjs URL FOLDER. Screenshots go to the folder.
//
// The server's model is real, so what it says is not known; where a text matters, the server's answer is replaced by one.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const [url, folder] = process.argv.slice(2);
const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args });

const wide = { width: 1280, height: 800 }, narrow = { width: 390, height: 844 };
const wrong = [];

async function page(viewport, more = {}) {
  const context = await browser.newContext({ viewport, ...more });
  const page = await context.newPage();
  page.on('pageerror', error => wrong.push(String(error)));
  page.on('console', message => { if (message.type() === 'error') wrong.push(message.text()); });
  // Nothing may be fetched from anywhere else.
  page.on('request', request => { if (!request.url().startsWith(url) && !request.url().startsWith('data:')) wrong.push(`asked ${request.url()}`); });
  await page.goto(url);
  return page;
}

async function send(page, text) {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
}

const done = page => page.getByRole('button', { name: 'Send' }).waitFor({ timeout: 120_000 });
const answers = page => page.locator('article.assistant .text');

/** From now on the likeliest answer is taken, which is one to have in a picture. */
async function coolest(page) {
  await page.getByRole('button', { name: 'Settings' }).click();
  await page.getByLabel('Temperature').fill('0');
  await page.getByRole('button', { name: 'Done' }).click();
}

/** Answers the next request with this text, in pieces. */
async function say(page, text) {
  const pieces = text.match(/[\s\S]{1,7}/g);
  const events = pieces.map(content => ({ choices: [{ index: 0, delta: { content } }] }));
  events.push({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
  events.push({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 9, total_tokens: 14 } });
  const body = events.map(event => `data: ${JSON.stringify(event)}\n\n`).join('') + 'data: [DONE]\n\n';
  await page.route('**/v1/chat/completions', route => route.fulfill({ contentType: 'text/event-stream', body }), { times: 1 });
}

/** From now on the page gets as an answer what the test gives its functions `piece`, `event` and `end`. */
async function stream(page) {
  await page.evaluate(() => {
    const { fetch } = window, encoder = new TextEncoder();
    window.fetch = (url, options) => url !== 'v1/chat/completions' ? fetch(url, options) : Promise.resolve(new Response(new ReadableStream({
      start(control) {
        window.event = event => control.enqueue(encoder.encode(`data: ${JSON.stringify(event)}\n\n`));
        window.piece = content => window.event({ choices: [{ index: 0, delta: { content } }] });
        window.end = () => control.close();
        options.signal.addEventListener('abort', () => control.error(options.signal.reason));
      },
    })));
  });
}

const tests = {
  async 'a first answer, which a reload keeps'() {
    const p = await page(wide);
    await coolest(p);
    await send(p, 'What is the capital of France?');
    await done(p);
    const first = await answers(p).last().innerText();
    assert.ok(first.length > 0);
    assert.match(await p.locator('#meter').getAttribute('aria-label'), /^[1-9]\d* of [1-9]\d* tokens/);
    assert.match(first, /Paris/);
    await send(p, 'Write a short list of three things to see in Paris.');
    await done(p);
    const second = await answers(p).last().innerText();
    await p.screenshot({ path: `${folder}/page-1280.png` });
    await p.reload();
    assert.deepEqual(await answers(p).allInnerTexts(), [first, second]);
  },

  async 'regenerate and edit take the place of what was there'() {
    const p = await page(wide);
    await send(p, 'Say a word.');
    await done(p);
    await p.getByRole('button', { name: 'Regenerate' }).click();
    await done(p);
    assert.equal(await p.locator('article').count(), 2);
    await p.getByRole('button', { name: 'Edit' }).click();
    assert.equal(await p.getByLabel('Message', { exact: true }).inputValue(), 'Say a word.');
    await send(p, 'Say two words.');
    await done(p);
    assert.equal(await p.locator('article.user .text').innerText(), 'Say two words.');
  },

  async 'an edit takes nothing away before it is sent'() {
    const p = await page(wide), field = p.getByLabel('Message', { exact: true });
    for (const text of ['one', 'two', 'three']) {
      await say(p, `To ${text}.`);
      await send(p, text);
      await done(p);
    }
    await field.fill('a draft');
    for (const leave of [() => p.keyboard.press('Escape'), () => p.getByRole('button', { name: 'Cancel' }).click()]) {
      await p.getByRole('button', { name: 'Edit' }).first().click();
      assert.equal(await field.inputValue(), 'one');
      assert.equal(await p.locator('article').count(), 6);
      await leave();
      assert.equal(await field.inputValue(), 'a draft');
      assert.ok(!await p.getByRole('button', { name: 'Cancel' }).isVisible());
    }
    await p.getByRole('button', { name: 'Edit' }).nth(1).click();
    await p.reload();
    assert.equal(await p.locator('article').count(), 6);
    await p.getByRole('button', { name: 'Edit' }).nth(1).click();
    await say(p, 'Another.');
    await send(p, 'two, in other words');
    await done(p);
    assert.deepEqual(await p.locator('article .text').allInnerTexts(), ['one', 'To one.', 'two, in other words', 'Another.']);
  },

  async 'what was deleted can be had back'() {
    const p = await page(wide);
    await say(p, 'An answer.');
    await send(p, 'dear to me');
    await done(p);
    await p.getByRole('button', { name: 'Delete dear to me' }).click();
    assert.equal(await p.locator('article').count(), 0);
    assert.match(await p.getByRole('status').filter({ hasText: 'Deleted' }).innerText(), /dear to me/);
    await p.getByRole('button', { name: 'Undo' }).click();
    assert.equal(await p.locator('nav li').count(), 1);
    await p.reload();
    assert.deepEqual(await p.locator('article .text').allInnerTexts(), ['dear to me', 'An answer.']);
  },

  async 'the context fills while an answer comes, and stays so where it is stopped'() {
    const p = await page(wide);
    const used = async () => Number((await p.locator('#meter').getAttribute('aria-label')).match(/^(?:About )?(\d+) of [1-9]\d* tokens/)[1]);
    await stream(p);
    await send(p, 'Count.');
    await p.waitForFunction(() => window.piece);
    const seen = [];
    for (let i = 0; i < 12; i++) {
      await p.waitForTimeout(70);
      await p.evaluate(i => window.piece(`${i} `), i);
      await p.waitForFunction(i => document.querySelector('article.assistant .text').textContent.includes(i), i);
      seen.push(await used());
    }
    assert.deepEqual(seen.map(n => n - seen[0]), seen.map((_, i) => i));
    assert.ok(seen[0] > 1);
    await p.getByRole('button', { name: 'Stop' }).click();
    await done(p);
    for (const look of ['stopped', 'reloaded']) {
      assert.equal(await used(), seen.at(-1), look);
      assert.match(await p.locator('#meter').innerText(), /[1-9]\d*\.\d tokens\/s/);
      await p.reload();
    }
    // What the server counts takes the place of what was guessed.
    await say(p, 'Yes.');
    await send(p, 'Again.');
    await done(p);
    assert.equal(await used(), 14);
  },

  async 'what is selected in an answer stays so while the rest of it comes'() {
    const p = await page(wide);
    await stream(p);
    await send(p, 'Tell me.');
    await p.waitForFunction(() => window.piece);
    const add = async (text, last) => {
      await p.evaluate(text => window.piece(text), text);
      await p.waitForFunction(last => document.querySelector('article.assistant .text').textContent.includes(last), last);
      await p.waitForTimeout(70);
    };
    await add('Some *first* words', 'words');
    // In a text that itself goes on to grow.
    await p.evaluate(() => {
      const text = document.querySelector('article.assistant .text p').lastChild;
      getSelection().setBaseAndExtent(text, 1, text, 6);
    });
    const selected = () => p.evaluate(() => String(getSelection()));
    for (const [text, last] of [[' and **mo', 'mo'], ['re** of them.', 'them'], ['\n\n```sh\necho', 'echo'], [' on\n```\n\n- one', 'one'], ['\n- two', 'two']]) {
      await add(text, last);
      assert.equal(await selected(), 'words', text);
    }
    await p.evaluate(() => window.end());
    await done(p);
    assert.equal(await selected(), 'words');
    assert.deepEqual(await answers(p).last().locator('em, strong, code, li').allInnerTexts(), ['first', 'more', 'echo on', 'one', 'two']);
    // A block that grew is copied whole.
    await p.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await p.locator('figure').getByRole('button', { name: 'Copy' }).click();
    await p.getByRole('status').filter({ hasText: 'Copied.' }).waitFor({ state: 'attached' });
    assert.equal(await p.evaluate(() => navigator.clipboard.readText()), 'echo on');
  },

  async 'an answer is stopped, and what there is of it stays'() {
    const p = await page(wide);
    await send(p, 'Write a very long story about a river.');
    await p.waitForFunction(() => document.querySelector('article.assistant .text')?.innerText.length > 20);
    await p.getByRole('button', { name: 'Stop' }).click();
    await done(p);
    assert.match(await p.locator('article.assistant .tools').innerText(), /stopped/);
    const kept = await answers(p).last().innerText();
    assert.ok(kept.length > 20);
    await p.reload();
    assert.equal(await answers(p).last().innerText(), kept);
  },

  async 'two tabs keep what both have'() {
    const p = await page(wide), q = await p.context().newPage();
    await q.goto(url);
    for (const [tab, text] of [[p, 'of the first tab'], [q, 'of the second tab']]) {
      await tab.getByRole('button', { name: 'New conversation', exact: true }).first().click();
      await say(tab, 'An answer.');
      await send(tab, text);
      await done(tab);
    }
    for (const tab of [p, q]) {
      await tab.reload();
      const titles = await tab.locator('#list button[aria-label^="Delete"]').evaluateAll(all => all.map(b => b.getAttribute('aria-label')));
      for (const name of ['first', 'second']) assert.ok(titles.includes(`Delete of the ${name} tab`), String(titles));
    }
  },

  async 'text of a model is text'() {
    const p = await page(narrow);
    const hostile = [
      '<script>window.broken = 1</script> <img src=x onerror="window.broken = 2"> <b>bold</b>',
      '[a link](javascript:window.broken=3) and https://example.com/ ![p](https://example.com/p.png)',
      '**<iframe srcdoc="x">** `<svg onload=window.broken=4>`',
      '```html\n<script>window.broken = 5</script>\n```',
      '| <i>a</i> | b |\n|---|---|\n| <u>c</u> | d |',
      'x'.repeat(4000),
    ].join('\n\n');
    await say(p, hostile);
    await send(p, '<b>hello</b>');
    await done(p);
    assert.equal(await p.evaluate(() => window.broken), undefined);
    assert.equal(await p.locator('#log script, #log img, #log iframe, #log b, #log i, #log u, #log a').count(), 0);
    assert.equal(await p.locator('article.user .text').innerText(), '<b>hello</b>');
    const said = await answers(p).last().innerText();
    assert.ok(said.includes('<script>window.broken = 1</script>') && said.includes('[a link](javascript:'));
    assert.equal(await p.locator('#log figure pre code').innerText(), '<script>window.broken = 5</script>');
    // A long line does not make the page wider than the phone.
    assert.ok(await p.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    await p.reload();
    assert.equal(await p.evaluate(() => window.broken), undefined);
  },

  async 'markdown and code'() {
    const p = await page(narrow);
    await say(p, '# Bread\n\nMix **flour** and *water*:\n\n1. Weigh\n2. Knead `10` minutes\n   ```sh\n   bake\n   ```\n\n- rest\n- bake\n\n```python\nfor i in range(3):\n    print("<", i)\n```\n\n> warm');
    await send(p, 'How do I bake bread?');
    await done(p);
    const text = answers(p).last();
    assert.deepEqual(await text.locator('h3, strong, em, ol > li, ul > li, blockquote, p > code, li > code').allInnerTexts(), ['Bread', 'flour', 'water', 'Weigh', 'Knead 10 minutes', '10', 'rest', 'bake', 'warm']);
    assert.equal(await text.locator('pre').first().innerText(), 'bake');
    assert.equal(await text.locator('pre').last().innerText(), 'for i in range(3):\n    print("<", i)');
    await p.screenshot({ path: `${folder}/page-390.png` });
    const dark = await page(narrow, { colorScheme: 'dark' });
    assert.notEqual(await dark.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(255, 255, 255)');
  },

  async 'several conversations, with a system prompt of their own'() {
    const p = await page(wide);
    await say(p, 'One.');
    await send(p, 'first');
    await done(p);
    await p.getByRole('button', { name: 'New conversation', exact: true }).first().click();
    await p.getByRole('button', { name: 'Settings' }).click();
    await p.getByLabel('System prompt').fill('Answer in French.');
    await p.getByLabel('Longest answer').fill('5');
    await p.getByRole('button', { name: 'Done' }).click();
    const asked = p.waitForRequest('**/v1/chat/completions');
    await send(p, 'second');
    const body = (await asked).postDataJSON();
    assert.deepEqual(body.messages, [{ role: 'system', content: 'Answer in French.' }, { role: 'user', content: 'second' }]);
    assert.equal(body.max_tokens, 5);
    await done(p);
    await p.getByRole('button', { name: 'first', exact: true }).click();
    assert.equal(await p.locator('article.user .text').innerText(), 'first');
    await p.getByRole('button', { name: 'Delete first' }).click();
    assert.equal(await p.locator('nav li').count(), 1);
  },

  async 'what is too long is marked, and the next is answered'() {
    const p = await page(narrow);
    await send(p, 'word '.repeat(3000));
    await p.getByRole('alert').waitFor();
    assert.match(await p.locator('article.user').innerText(), /not answered/);
    await p.reload();
    const asked = p.waitForRequest('**/v1/chat/completions');
    await send(p, 'hi');
    assert.deepEqual((await asked).postDataJSON().messages, [{ role: 'user', content: 'hi' }]);
    await p.waitForFunction(() => [...document.querySelectorAll('article.assistant .text')].at(-1).innerText.length > 0);
    await p.keyboard.press('Escape');
    await done(p);
    assert.equal(await p.getByRole('alert').count(), 1);
    assert.equal(await p.locator('#log .left').count(), 0);
    // The browser says of its own that a request failed.
    wrong.length = 0;
  },

  async 'of a conversation longer than the context, the newest turns are sent'() {
    const said = (user, assistant) => [{ role: 'user', content: user }, { role: 'assistant', content: assistant }];
    const messages = [...said('a', 'b'), ...said('word '.repeat(2100), 'c'), ...said('d', 'e')];
    const p = await page(wide);
    await p.evaluate(chat => localStorage.setItem('armlet', JSON.stringify({ chats: [chat], current: 0, settings: {} })), { id: 'x', title: 'long', system: 'Be brief.', messages });
    await p.reload();
    const asked = [];
    p.on('request', request => { if (request.method() === 'POST') asked.push(request.postDataJSON().messages.map(m => m.content.slice(0, 9))); });
    for (const text of ['f', 'g']) {
      await send(p, text);
      await p.waitForFunction(() => [...document.querySelectorAll('article.assistant .text')].at(-1).innerText.length > 0);
      await p.keyboard.press('Escape');
      await done(p);
    }
    assert.deepEqual(asked[0].slice(0, 4), ['Be brief.', 'a', 'b', 'word word']);
    assert.deepEqual(asked[1], ['Be brief.', 'd', 'e', 'f']);
    // What did not fit is not tried again.
    assert.deepEqual([asked.length, asked[2].slice(0, 4), asked[2].at(-1)], [3, ['Be brief.', 'd', 'e', 'f'], 'g']);
    await p.reload();
    assert.equal(await p.locator('article').count(), 10);
    assert.match(await p.locator('#log > :nth-child(5)').innerText(), /no longer has what is above/);
    assert.equal(await p.locator('#log .left').count(), 1);
    wrong.length = 0;
  },

  async 'what is kept may be anything'() {
    const p = await page(wide);
    const message = { role: 'user', content: 'hello' };
    const good = { id: 'good', title: 'good', system: '', messages: [message] };
    const kept = [
      'no JSON', '7', '"text"', '[]', 'null', '{}', '{"chats":7}', '{"chats":[]}', '{"chats":[null,7,"a",[],{}]}', '{"chats":[{"id":"x"}]}',
      JSON.stringify({ chats: [good], settings: null, current: 'none' }),
      JSON.stringify({ chats: [good], settings: { temperature: 'hot', top_p: null, key: 7, seed: -1, more: {} }, current: 99 }),
      JSON.stringify({ chats: [{ ...good, title: {}, system: 7, from: 99, messages: [null, 7, {}, { role: 'system', content: 'x' }, { role: 'assistant' }, message, { ...message, usage: 'a', note: {}, error: [], thinking: 7 }] }] }),
    ];
    for (const text of kept) {
      await p.evaluate(text => localStorage.setItem('armlet', text), text);
      await p.reload();
      await p.waitForFunction(() => document.title !== 'armlet');
      assert.doesNotMatch(await p.locator('#model').innerText(), /server/, text);
      if (text.includes('good')) assert.equal(await p.locator('article.user .text').first().innerText(), 'hello', text);
      await say(p, 'Yes.');
      const asked = p.waitForRequest('**/v1/chat/completions');
      await send(p, 'Hi');
      const body = (await asked).postDataJSON();
      assert.deepEqual(Object.keys(body), ['messages', 'stream', 'stream_options'], text);
      assert.equal(body.messages.at(-1).content, 'Hi', text);
      await done(p);
      assert.equal(await answers(p).last().innerText(), 'Yes.', text);
      assert.deepEqual(wrong, [], text);
    }
  },

  async 'what goes wrong is said'() {
    const p = await page(narrow);
    const body = JSON.stringify({ error: { message: 'The context is too long.' } });
    await p.route('**/v1/chat/completions', route => route.fulfill({ status: 400, contentType: 'application/json', body }), { times: 1 });
    await send(p, 'Hi');
    await p.getByRole('alert').waitFor();
    assert.equal(await p.getByRole('alert').innerText(), 'The context is too long.');
    // The browser says of its own that a request failed.
    wrong.length = 0;
  },

  async 'the list of conversations opens and closes on a phone'() {
    const p = await page(narrow), button = p.getByRole('button', { name: 'Conversations' }), side = p.locator('#side');
    const text = () => p.evaluate(() => document.activeElement.textContent);
    await say(p, 'Yes.');
    await send(p, 'one');
    await done(p);
    const closed = async () => {
      assert.ok(!await side.isVisible());
      assert.equal(await button.getAttribute('aria-expanded'), 'false');
    };
    // Its own button closes it, and is not covered; so do Escape, and a tap beside it, which does not reach what is there.
    const edit = await p.getByRole('button', { name: 'Edit' }).boundingBox();
    const leave = [() => button.click({ timeout: 5000 }), () => p.keyboard.press('Escape'), () => p.mouse.click(edit.x + edit.width / 2, edit.y + edit.height / 2)];
    for (const close of leave) {
      await button.click();
      assert.ok(await side.isVisible());
      assert.equal(await button.getAttribute('aria-expanded'), 'true');
      assert.equal(await text(), 'New conversation');
      await close();
      await closed();
      assert.equal(await p.evaluate(() => document.activeElement.id), 'menu');
    }
    assert.equal(await p.getByLabel('Message', { exact: true }).inputValue(), '');
    // Who goes on past its end does not go on behind it.
    await button.click();
    for (let i = 0; i < 6 && await side.isVisible(); i++) await p.keyboard.press('Tab');
    await closed();
    assert.ok(!await p.evaluate(() => document.activeElement.closest('nav')));
    // To delete one leaves the list open.
    await button.click();
    await p.getByRole('button', { name: 'Delete one' }).click();
    await p.getByRole('button', { name: 'Undo' }).click();
    await p.locator('#list').getByRole('button', { name: 'one', exact: true }).click();
    await closed();
  },

  async 'a keyboard is enough'() {
    const p = await page(wide);
    await say(p, 'Yes.');
    await p.keyboard.type('one line');
    await p.keyboard.press('Shift+Enter');
    await p.keyboard.type('and another');
    await p.keyboard.press('Enter');
    await done(p);
    assert.equal(await p.locator('article.user .text').innerText(), 'one line\nand another');
    const names = [];
    for (let i = 0; i < 12; i++) {
      await p.keyboard.press('Tab');
      names.push(await p.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()));
    }
    for (const name of ['New conversation', 'Settings', 'Edit', 'Regenerate', 'Message']) assert.ok(names.includes(name), `${name}: ${names}`);
  },

  async 'the focus stays where a keyboard goes on'() {
    const p = await page(wide);
    const focused = () => p.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent);
    for (const text of ['one', 'two', 'three']) {
      await p.getByRole('button', { name: 'New conversation', exact: true }).first().click();
      await say(p, 'Yes.');
      await send(p, text);
      await done(p);
    }
    await stream(p);
    await p.getByRole('button', { name: 'Regenerate' }).press('Enter');
    await p.waitForFunction(() => window.piece);
    assert.equal(await focused(), 'Regenerate');
    // It does nothing yet.
    await p.keyboard.press('Enter');
    await p.evaluate(() => { window.piece('No.'); window.end(); });
    await done(p);
    assert.equal(await focused(), 'Regenerate');
    assert.deepEqual(await p.locator('article .text').allInnerTexts(), ['three', 'No.']);
    // As from a machine over plain HTTP.
    await p.evaluate(() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); });
    await p.locator('article.assistant').getByRole('button', { name: 'Copy' }).press('Enter');
    await p.getByRole('status').filter({ hasText: 'Copied.' }).waitFor({ state: 'attached' });
    assert.equal(await focused(), 'Copy');
    for (const [name, next] of [['two', 'one'], ['one', 'three'], ['three', 'New conversation']]) {
      await p.getByRole('button', { name: `Delete ${name}` }).press('Enter');
      assert.equal(await focused(), next);
    }
    await p.getByRole('button', { name: 'Undo' }).press('Enter');
    assert.equal(await focused(), 'three');
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    assert.deepEqual(wrong, []);
    console.log(`ok ${name}`);
  } catch (error) {
    failed++;
    wrong.length = 0;
    console.log(`FAILED ${name}: ${error.stack}`);
  }
}
await browser.close();
console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
