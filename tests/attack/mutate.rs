//! Damage: of the structure of a GGUF file, and of any bytes.

use std::ops::Range;

use crate::fields::{Kind, Parts};
use crate::rng::Rng;

/// Texts that are longer, emptier or odder than they should be.
fn odd_text(rng: &mut Rng) -> Vec<u8> {
    let long = |rng: &mut Rng| 1 << rng.below(18);
    match rng.below(12) {
        0 => vec![],
        1 => vec![0],
        2 => vec![b'a'; long(rng)],
        3 => vec![0xff, 0xfe, 0x80],
        4 => b"\x1b]52;c;AAAA\x07\xc2\x9b31m".to_vec(),
        5 => "\u{202e}\u{2581}\u{120}".into(),
        6 => b"../../../etc/passwd".to_vec(),
        7 => b"<0x0A>".to_vec(),
        8 => "ab ".repeat(long(rng) / 4).into_bytes(),
        9 => odd_template(rng).into_bytes(),
        10 => b"llama".to_vec(),
        _ => (0..rng.below(40)).map(|_| rng.number() as u8).collect(),
    }
}

/// Pieces of templates that do too much.
pub(crate) fn odd_template(rng: &mut Rng) -> String {
    const PIECES: [&str; 16] = [
        "{{ 'a' * 10000000 }}",
        "{{ 'ab' * 100000000 }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{{ messages | tojson(indent=100000) }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{{ range(1000000000) | list | length }}",
        "{{ messages[0].content.split('') }}",
        "{{ messages[99].content }}",
        "{{ raise_exception('a\nb') }}",
        "{{ '%s' % messages }}{{ strftime_now('%Y' * 100000) }}",
        "{% if",
        "{{ messages | map(attribute='content') | join('<|im_start|>') }}",
        "{% for m in messages %}{{ m.role }}{{ m['content'] | trim }}{% endfor %}",
    ];
    let piece = *rng.of(&PIECES);
    if rng.one_in(8) {
        format!("{{{{ {} 1 }}}}", ["-", "(", "not "][rng.below(3)].repeat(1 << rng.below(16)))
    } else {
        piece.into()
    }
}

/// A value of the metadata: its type, and its bytes.
fn odd_value(rng: &mut Rng) -> (u32, Vec<u8>) {
    let kind = rng.below(13) as u32;
    let floats = [f64::NAN, f64::INFINITY, -0.0, 1e-45, 1e38, -1.0, 0.0, 1e300];
    match kind {
        8 => (8, string(&odd_text(rng))),
        6 => (6, (*rng.of(&floats) as f32).to_le_bytes().into()),
        12 => (12, rng.of(&floats).to_le_bytes().into()),
        9 => {
            let item = rng.below(13) as u32;
            let n = if rng.one_in(6) { 1 << rng.below(16) } else { rng.below(12) };
            let items: Vec<u8> = match item {
                8 => (0..n.min(512)).flat_map(|_| string(&[rng.number() as u8])).collect(),
                9 => vec![0; 12 * n],
                _ => (0..n * 8).map(|_| rng.number() as u8).collect(),
            };
            (9, [&item.to_le_bytes()[..], &(n as u64).to_le_bytes(), &items].concat())
        }
        _ => (kind, rng.telling().to_le_bytes()[..[1, 1, 2, 2, 4, 4, 4, 1, 8, 8, 8, 8, 8][kind as usize]].into()),
    }
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A file's header as lists, and its data.
struct Lists {
    alignment: usize,
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

impl Lists {
    fn of(bytes: &[u8]) -> Option<Self> {
        let parts = Parts::of(bytes);
        let list = |ranges: &[Range<usize>]| ranges.iter().map(|r| bytes[r.clone()].to_vec()).collect::<Vec<_>>();
        let entries = list(&parts.entries);
        let key = string(b"general.alignment");
        let set = entries.iter().find_map(|e| e.strip_prefix(&key[..])?.get(4..8)?.try_into().ok());
        let alignment = set.map_or(32, u32::from_le_bytes).clamp(1, 1 << 12) as usize;
        let data = bytes.get(parts.end.next_multiple_of(alignment)..)?.to_vec();
        Some(Lists { alignment, entries, tensors: list(&parts.tensors), data })
    }

    /// The file; its counts may be wrong by `off`.
    fn build(&self, off: u64) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).wrapping_add(off >> 1).to_le_bytes());
        out.extend((self.entries.len() as u64).wrapping_add(off & 1).to_le_bytes());
        out.extend(self.entries.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }
}

/// Puts an entry, a tensor or an item of an array where it is not, twice, or nowhere; or changes a value.
fn rearrange(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let Some(mut lists) = Lists::of(bytes) else { return };
    let off = if rng.one_in(10) { 1 + rng.number() % 3 } else { 0 };
    if rng.one_in(3) {
        shuffle(&mut lists.tensors, rng);
    } else if rng.one_in(3) || lists.entries.is_empty() {
        shuffle(&mut lists.entries, rng);
    } else {
        let entry = rng.below(lists.entries.len());
        change_value(&mut lists.entries[entry], rng);
    }
    *bytes = lists.build(off);
}

fn shuffle(list: &mut Vec<Vec<u8>>, rng: &mut Rng) {
    if list.is_empty() {
        return;
    }
    let (a, b) = (rng.below(list.len()), rng.below(list.len()));
    match rng.below(5) {
        0 => drop(list.remove(a)),
        1 => list.insert(b, list[a].clone()),
        2 => list.swap(a, b),
        3 => list.truncate(a),
        _ if rng.one_in(8) => {
            let many = 1 << rng.below(12);
            (0..many).for_each(|_| list.push(list[a].clone()));
        }
        _ => list[a] = list[b].clone(),
    }
}

/// Another value for the same key, or other items of the same array.
fn change_value(entry: &mut Vec<u8>, rng: &mut Rng) {
    let key = u64::from_le_bytes(entry[..8].try_into().unwrap()) as usize + 8;
    let is_strings = entry[key..].starts_with(&[9, 0, 0, 0, 8, 0, 0, 0]);
    if is_strings && !rng.one_in(4) {
        let mut items = Vec::new();
        let mut rest = &entry[key + 16..];
        while let Some((len, tail)) = rest.split_first_chunk::<8>() {
            let (item, tail) = tail.split_at(u64::from_le_bytes(*len) as usize);
            items.push(string(item));
            rest = tail;
        }
        for _ in 0..1 + rng.below(4) {
            if rng.one_in(2) || items.is_empty() {
                let at = rng.below(items.len() + 1);
                items.insert(at, string(&odd_text(rng)));
                if rng.one_in(2) {
                    items.pop();
                }
            } else {
                shuffle(&mut items, rng);
            }
        }
        entry.truncate(key + 8);
        entry.extend((items.len() as u64).to_le_bytes());
        entry.extend(items.concat());
    } else {
        let (kind, value) = odd_value(rng);
        entry.truncate(key);
        entry.extend(kind.to_le_bytes());
        entry.extend(value);
    }
}

/// Damages one field.
fn change_field(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let parts = Parts::of(bytes);
    let kind = *rng.of(&Kind::ALL);
    let of_kind: Vec<_> = parts.fields.iter().filter(|(k, _)| *k == kind).map(|(_, range)| range.clone()).collect();
    if of_kind.is_empty() {
        return;
    }
    let range = rng.of(&of_kind).clone();
    if kind == Kind::Text {
        let text = odd_text(rng);
        if rng.one_in(2) {
            // Its length is what it was.
            bytes[range].iter_mut().zip(text).for_each(|(to, from)| *to = from);
        } else {
            // In its full length.
            bytes.splice(range.start - 8..range.end, string(&text));
        }
        return;
    }
    let old = bytes[range.clone()].iter().rev().fold(0u64, |x, b| x << 8 | u64::from(*b));
    let new = match rng.below(7) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old.wrapping_mul(2),
        3 => {
            let other = rng.of(&of_kind).clone();
            bytes[other].iter().rev().fold(0u64, |x, b| x << 8 | u64::from(*b))
        }
        4 => rng.number() % 64,
        _ => rng.telling(),
    };
    bytes[range].iter_mut().zip(new.to_le_bytes()).for_each(|(to, from)| *to = from);
}

/// Damage that knows nothing of the format, in the first `end` bytes.
pub(crate) fn blind(bytes: &mut Vec<u8>, end: usize, rng: &mut Rng) {
    let end = end.min(bytes.len());
    if end == 0 {
        return;
    }
    let at = rng.below(end);
    let range = at..(at + 1 + rng.below(40)).min(bytes.len());
    match rng.below(8) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[range].fill(if rng.one_in(2) { 0xff } else { 0 }),
        3 => drop(bytes.drain(range)),
        4 => {
            let twice = bytes[range.clone()].to_vec();
            bytes.splice(range.start..range.start, twice);
        }
        5 => {
            let from = rng.below(end);
            let copied = bytes[from..(from + range.len()).min(bytes.len())].to_vec();
            bytes[range].iter_mut().zip(copied).for_each(|(to, from)| *to = from);
        }
        6 => {
            let number = rng.telling().to_le_bytes();
            let n = [1, 2, 4, 8][rng.below(4)];
            bytes[range].iter_mut().zip(&number[..n]).for_each(|(to, from)| *to = *from);
        }
        _ => {
            let extra: Vec<u8> = (0..rng.below(200)).map(|_| rng.number() as u8).collect();
            bytes.splice(at..at, extra);
        }
    }
}

/// A damaged GGUF file.
pub(crate) fn gguf(valid: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    // More than one makes most files malformed at their first bytes.
    for _ in 0..if rng.one_in(3) { 1 + rng.below(3) } else { 1 } {
        match rng.below(10) {
            0..4 => change_field(&mut bytes, rng),
            4..8 => rearrange(&mut bytes, rng),
            8 => {
                let end = Parts::of(&bytes).end;
                blind(&mut bytes, end, rng);
            }
            _ => {
                let end = bytes.len();
                blind(&mut bytes, end, rng);
            }
        }
    }
    bytes
}

/// A damaged text, of which pieces between `separators` are moved as well.
pub(crate) fn text(valid: &str, separators: &[char], rng: &mut Rng) -> Vec<u8> {
    let mut pieces: Vec<Vec<u8>> = valid.split_inclusive(separators).map(|piece| piece.as_bytes().to_vec()).collect();
    for _ in 0..rng.below(4) {
        shuffle(&mut pieces, rng);
    }
    if rng.one_in(3) {
        let at = rng.below(pieces.len() + 1);
        pieces.insert(at, odd_text(rng));
    }
    let mut bytes = pieces.concat();
    if rng.one_in(3) {
        let end = bytes.len();
        blind(&mut bytes, end, rng);
    }
    bytes
}

/// A damaged session or prefix. Most have right checksums, so that what is behind them is reached.
pub(crate) fn saved(valid: &[u8], rng: &mut Rng) -> Vec<u8> {
    const HEADER: usize = 256;
    let mut bytes = valid.to_vec();
    let number = |at: usize, bytes: &[u8]| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let extra = number(72, &bytes) as usize;
    match rng.below(8) {
        // The transcript.
        0..4 => {
            let json = String::from_utf8(bytes[HEADER..HEADER + extra].to_vec()).unwrap();
            let new = transcript(&json, rng);
            bytes[72..80].copy_from_slice(&(new.len() as u64).to_le_bytes());
            let mut padded = new;
            padded.resize(padded.len().next_multiple_of(64), 0);
            bytes.splice(HEADER..HEADER + extra.next_multiple_of(64), padded);
        }
        // The header.
        4..6 => {
            let at = 8 + 4 * rng.below((HEADER - 16) / 4);
            let new = rng.telling().to_le_bytes();
            let n = if rng.one_in(2) { 4 } else { 8 };
            bytes[at..at + n].copy_from_slice(&new[..n]);
        }
        // The cache.
        6 => {
            let mut content = bytes.split_off(HEADER);
            let end = content.len();
            blind(&mut content, end, rng);
            bytes.extend(content);
        }
        _ => {
            let end = bytes.len();
            blind(&mut bytes, end, rng);
        }
    }
    if bytes.len() > HEADER && !rng.one_in(8) {
        let content = crc32(&bytes[HEADER..]);
        bytes[248..252].copy_from_slice(&content.to_le_bytes());
        let header = crc32(&bytes[..252]);
        bytes[252..256].copy_from_slice(&header.to_le_bytes());
    }
    bytes
}

/// A damaged transcript: what is between commas, brackets and quotes is moved, or there are many of something.
fn transcript(json: &str, rng: &mut Rng) -> Vec<u8> {
    let many = 1 << rng.below(14);
    let message = |text: &str| format!(r#"{{"role":"user","text":"{text}"}},"#);
    match rng.below(8) {
        0 => json.replacen('[', &format!("[{}", message("A").repeat(many)), 1).into_bytes(),
        1 => json.replacen('[', &format!("[{}", message(&"A ".repeat(many))), 1).into_bytes(),
        2 => json.replacen("\"read\":[", &format!("\"read\":[{}", "4294967295,".repeat(many)), 1).into_bytes(),
        3 => "[".repeat(many).into_bytes(),
        4 => json.replacen("\"text\":\"", "\"text\":\"\\u001b]52;c;A\\u0007<|im_end|>", 1).into_bytes(),
        _ => text(json, &[',', '[', ']', '"', ':', '{'], rng),
    }
}

/// CRC-32 bit by bit, as the standard has it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut c = u32::MAX;
    for byte in bytes {
        c ^= u32::from(*byte);
        for _ in 0..8 {
            c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
        }
    }
    !c
}
