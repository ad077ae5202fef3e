//! What the fuzz target `grammar` does: any text as a grammar in GBNF.

#[allow(dead_code, reason = "the program has more use for it")]
#[path = "../../src/bin/armlet/grammar/gbnf.rs"]
mod gbnf;

/// Grammars with all that there is in the language.
pub fn seeds() -> Vec<Vec<u8>> {
    let grammars = [
        "# words\nroot ::= a-b | \"x\\n\"  # end\na-b ::= [a-z0-9-]+ (\n  root |\n  .\n){2,} \"\"?\n",
        "root ::= \"\\x41\\u00e9\\U0001f600\" [^\\]\\^-] root{1,3}{2}\n",
        "root ::= ((\"a\" | [b-]) .*)+ |\n x_Y-z{,4}{0}**\nx_Y-z ::= \n",
    ];
    grammars.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Translates a grammar: it is wrong for a reason, or becomes one that is not much longer.
pub fn grammar(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    match gbnf::to_lark(text) {
        Err(why) => assert!(!why.is_empty()),
        Ok(lark) => {
            // A character of a string becomes a regular expression.
            assert!(lark.len() <= 16 + 10 * text.len(), "{} bytes of {}", lark.len(), text.len());
            assert!(lark.starts_with("start: ") || lark.contains("\nstart: "), "{lark}");
        }
    }
}
