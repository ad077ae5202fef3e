//! What the fuzz target `tools` does: answers with calls in every dialect, cut anywhere.

#[allow(dead_code, unused_imports, reason = "this reads calls, and makes none")]
#[path = "../../src/bin/armlet/tools/mod.rs"]
mod tools;

use tools::{Calls, Dialect, Piece, Tool};

/// Texts by which a template is known to be of a family.
const KNOWN_BY: [&str; 9] = [
    "<tool_call>\n{\"name\": ",
    "<tool_call><function=<parameter=",
    "<|tool_call>call:",
    "[TOOL_CALLS]",
    "[TOOL_CALLS][ARGS]",
    "List of tools: ",
    "<|tool|>",
    "<|start_of_role|><|tool_call|>",
    "<|start_header_id|>\"parameters\": ",
];

/// An answer of each family; the first byte is its number.
pub fn seeds() -> Vec<Vec<u8>> {
    let answers = [
        "Well\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}<\\\"\", \"n\": [1, {}]}}\n</tool_call>\n<tool_call>\n{}",
        "<tool_call>\n<function=f>\n<parameter=a>\n{\"x\": 1}\n</parameter>\n</function>\n</tool_call> <tool_call>",
        "<|tool_call>call:f{a:<|\"|>}<\"<|\"|>,n:{b:[1,true,x]}}<tool_call|><|tool_call>call:g{}<tool_call|>",
        "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": \"x\"}, \"id\": \"abcdefghi\"}, {\"name\": \"g\"}]",
        "[TOOL_CALLS]f[ARGS]{\"a\": \"\\u00e9\"}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}",
        "<|tool_call_start|>[f(a='x\\'y', n=(1, None), d={'k': \"v\"}), g()]<|tool_call_end|> Done.",
        "<|tool_call|>[{\"arguments\": {\"n\": 1}, \"name\": \"f\"}]<|/tool_call|>",
        "<|tool_call|>[{\"name\": \"f\", \"arguments\": \"{\\\"n\\\": 1}\"}]",
        "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}",
    ];
    answers.iter().enumerate().map(|(i, text)| [&[i as u8, 7], text.as_bytes()].concat()).collect()
}

/// Reads an answer whole, and in two parts: they have the same calls and texts. The first byte chooses the dialect, the second
/// where the answer is cut.
pub fn tools(input: &[u8]) {
    let [family, cut, text @ ..] = input else { return };
    let text = &*String::from_utf8_lossy(text);
    let dialect = Dialect::of(KNOWN_BY[usize::from(*family) % KNOWN_BY.len()]).unwrap();
    let cut = text.char_indices().nth(usize::from(*cut)).map_or(text.len(), |(at, _)| at);
    let whole = read(dialect, &[text]);
    assert_eq!(read(dialect, &[&text[..cut], &text[cut..]]), whole);
    // Calls begin, have arguments and end in this order; what is no call is text, and nothing of it is lost.
    let mut open = false;
    for piece in &whole {
        match piece {
            Piece::Text(_) => {}
            Piece::Begin(_) => open = true,
            Piece::Arguments(_) => assert!(open, "{whole:?}"),
            Piece::End => assert!(std::mem::take(&mut open), "{whole:?}"),
        }
    }
    match &whole[..] {
        [] => assert!(text.is_empty()),
        [Piece::Text(only)] => assert_eq!(only, text),
        pieces => assert!(pieces.iter().any(|piece| matches!(piece, Piece::Begin(_))), "{pieces:?}"),
    }
}

/// All pieces, those of one kind that follow each other put together.
fn read(dialect: &'static Dialect, parts: &[&str]) -> Vec<Piece> {
    let mut calls = Calls::new(dialect, Vec::<Tool>::new().into());
    let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| calls.push(part)).collect();
    pieces.extend(calls.finish());
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (piece, joined.last_mut()) {
            (Piece::Text(more), Some(Piece::Text(text))) => *text += &more,
            (Piece::Arguments(more), Some(Piece::Arguments(text))) => *text += &more,
            (piece, _) => joined.push(piece),
        }
    }
    joined
}
