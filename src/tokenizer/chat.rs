//! Built-in chat formats, for files without a chat template and for firmware, which has no template engine.

use core::fmt::{self, Write};

use super::Tokenizer;
use crate::util::listed;

/// Author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Its name in chat templates.
    pub const fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'t> {
    /// Its author.
    pub role: Role,
    /// Its text.
    pub text: &'t str,
}

/// A chat format: how a conversation is written as text with control tokens.
///
/// It writes what the models' own templates do, but no system prompt of the model's: some templates add one where a
/// conversation has none (SmolLM2, Qwen2.5, Mistral Small, Granite 3 and 4.0), with the date in it (Llama 3.1 to 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatFormat {
    /// `<|im_start|>user<|im_sep|>…<|im_end|>`: Phi-4.
    Phi4,
    /// ChatML with a head of its own in the system prompt, also where there is none: SmolLM3, which answers without thinking.
    /// `/think` in a system message stays text, and its own template lets it choose.
    SmolLm3,
    /// `<|im_start|>user\n…<|im_end|>\n`: Qwen, LFM2, SmolLM2 and many others.
    ChatMl,
    /// `<|start_header_id|>user<|end_header_id|>\n\n…<|eot_id|>`: Llama 3.
    Llama3,
    /// `<start_of_turn>user\n…<end_of_turn>\n`: Gemma 1 to 3. It has no system role: [`write`](Self::write) puts a system
    /// message before the user's text, and a system turn alone is one of the user.
    Gemma,
    /// `<|turn>user\n…<turn|>\n`: Gemma 4, which answers without thinking.
    Gemma4,
    /// `<|start_of_role|>user<|end_of_role|>…<|end_of_text|>\n`: Granite.
    Granite,
    /// `[INST]…[/INST]`: Mistral's of 2025 (Small 3, Devstral, Ministral 3).
    Mistral,
    /// `<|user|>…<|end|>`: Phi-4-mini.
    Phi4Mini,
    /// `<|user|>\n…<|end|>\n`: Phi-3 and Phi-3.5.
    Phi3,
    /// `<|user|>\n…</s>\n`: Zephyr, TinyLlama.
    Zephyr,
}

/// The formats in few bytes, in the order of [`ChatFormat`], each behind `\x03`: control tokens that a vocabulary has to
/// have, with `\x01` between them; then a turn of the system, of the user and of the model, each behind `\0`, or one that
/// serves for the rest. In a turn, `\x01` is the role, and `\x02` the text.
static FORMATS: &str = concat!(
    "\x03<|im_sep|>\0<|im_start|>\x01<|im_sep|>\x02<|im_end|>",
    "\x03<|im_start|>\x01<think>\x01<|begin_of_text|>\0<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\n",
    "Reasoning Mode: /no_think\n\n## Custom Instructions\n\n\x02\n\n<|im_end|>\n\0<|im_start|>user\n\x02<|im_end|>\n",
    "\0<|im_start|>assistant\n<think>\n\n</think>\n\x02<|im_end|>\n",
    "\x03<|im_start|>\0<|im_start|>\x01\n\x02<|im_end|>\n",
    "\x03<|start_header_id|>\0<|start_header_id|>\x01<|end_header_id|>\n\n\x02<|eot_id|>",
    "\x03<start_of_turn>\0<start_of_turn>\x01\n\x02<end_of_turn>\n",
    "\x03<|turn>\0<|turn>\x01\n\x02<turn|>\n",
    "\x03<|start_of_role|>\0<|start_of_role|>\x01<|end_of_role|>\x02<|end_of_text|>\n",
    "\x03[SYSTEM_PROMPT]\0[SYSTEM_PROMPT]\x02[/SYSTEM_PROMPT]\0[INST]\x02[/INST]\0\x02</s>",
    "\x03<|user|>\x01<|end|>\x01<|tool|>\0<|\x01|>\x02<|end|>",
    "\x03<|user|>\x01<|end|>\0<|\x01|>\n\x02<|end|>\n",
    "\x03<|user|>\0<|\x01|>\n\x02</s>\n",
);

/// The most bytes that a format adds to one text: the end of an answer, what is before the first turn, the turn, and the
/// start of an answer.
#[cfg(feature = "capi")]
pub(crate) const MOST_ADDED: usize = 384;

/// What is before the first `mark` and behind it; all and none, if there is none.
#[inline(never)]
fn cut(text: &'static str, mark: u8) -> (&'static str, Option<&'static str>) {
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        if *byte == mark {
            return (text.get(..at).unwrap_or(""), text.get(at + 1..));
        }
        at += 1;
    }
    (text, None)
}

impl ChatFormat {
    /// The first whose control tokens are there is taken.
    const ALL: [ChatFormat; 11] = [
        ChatFormat::Phi4,
        ChatFormat::SmolLm3,
        ChatFormat::ChatMl,
        ChatFormat::Llama3,
        ChatFormat::Gemma,
        ChatFormat::Gemma4,
        ChatFormat::Granite,
        ChatFormat::Mistral,
        ChatFormat::Phi4Mini,
        ChatFormat::Phi3,
        ChatFormat::Zephyr,
    ];

    /// The format whose control tokens the vocabulary has.
    pub fn detect(tokenizer: &Tokenizer<'_>) -> Option<ChatFormat> {
        let fits = |format: &&ChatFormat| {
            // Other models with a vocabulary of Llama 3 have its tokens, too.
            if **format == ChatFormat::SmolLm3 && !tokenizer.is_smollm3 {
                return false;
            }
            let mut marks = Some(cut(format.packed(), 0).0);
            while let Some(list) = marks {
                let (mark, rest) = cut(list, 1);
                if tokenizer.find(mark.as_bytes()).is_none() {
                    return false;
                }
                marks = rest;
            }
            true
        };
        listed(&Self::ALL).iter().find(fits).copied()
    }

    /// Its part of [`FORMATS`].
    #[inline(never)]
    fn packed(self) -> &'static str {
        let mut formats = FORMATS;
        for _ in 0..=self as usize {
            formats = cut(formats, 3).1.unwrap_or("");
        }
        cut(formats, 3).0
    }

    /// A turn of `role`: what is before its text, and behind it.
    #[inline(never)]
    fn turn(self, role: Role) -> (&'static str, &'static str) {
        let mut turn = self.packed();
        for _ in 0..=role as usize {
            turn = cut(turn, 0).1.unwrap_or(turn);
        }
        let (before, after) = cut(cut(turn, 0).0, 2);
        (before, after.unwrap_or(""))
    }

    /// Writes `turns`, then the start of an answer. The BOS token is left to
    /// [`EncodeOptions::add_special`](super::EncodeOptions).
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, turns: &[Turn<'_>], out: &mut dyn Write) -> fmt::Result {
        let mut write = |parts: &[&str]| parts.iter().try_for_each(|part| out.write_str(part));
        let mut before = None;
        for turn in turns {
            if before.is_none() {
                write(&self.preamble(turn.role))?;
            }
            let joins = |role| self == ChatFormat::Gemma && role == Role::System;
            if !before.is_some_and(joins) {
                write(&self.opening(turn.role))?;
            }
            let closing = if joins(turn.role) { "\n\n" } else { self.closing(turn.role) };
            write(&[self.text(turn.role, turn.text), closing])?;
            before = Some(turn.role);
        }
        write(&self.answer())
    }

    /// The text before the first turn of a conversation, if that is of `role`: the default system prompt of SmolLM3, the only
    /// format that has one.
    pub fn preamble(self, role: Role) -> [&'static str; 3] {
        if self != ChatFormat::SmolLm3 || role == Role::System {
            return [""; 3];
        }
        let (before, after) = self.turn(Role::System);
        [before, "You are a helpful AI assistant named SmolLM, trained by Hugging Face.", after]
    }

    /// A turn's text as the format writes it: some templates trim it.
    pub fn text(self, role: Role, text: &str) -> &str {
        match (self, role) {
            (ChatFormat::Gemma, Role::System) => text,
            (ChatFormat::Llama3 | ChatFormat::Gemma | ChatFormat::Gemma4, _) => text.trim(),
            (ChatFormat::SmolLm3, Role::System) => text.trim_end(),
            (ChatFormat::SmolLm3, Role::Assistant) => {
                text.get(text.bytes().take_while(|byte| *byte == b'\n').count()..).unwrap_or("")
            }
            _ => text,
        }
    }

    /// The text before a turn's own.
    #[inline(never)]
    pub fn opening(self, role: Role) -> [&'static str; 3] {
        let name = match (self, role) {
            (ChatFormat::Gemma | ChatFormat::Gemma4, Role::Assistant) => "model",
            (ChatFormat::Gemma, _) => "user",
            _ => role.name(),
        };
        let (before, after) = cut(self.turn(role).0, 1);
        [before, if after.is_some() { name } else { "" }, after.unwrap_or("")]
    }

    /// The text after a turn's own; after the model's answer, that of [`Role::Assistant`].
    pub fn closing(self, role: Role) -> &'static str {
        self.turn(role).1
    }

    /// The text before an answer of the model.
    pub fn answer(self) -> [&'static str; 4] {
        let [before, name, after] = self.opening(Role::Assistant);
        // Thoughts, which are empty.
        let thoughts = if self == ChatFormat::Gemma4 { "<|channel>thought\n<channel|>" } else { "" };
        [before, name, after, thoughts]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[cfg(feature = "capi")]
    #[test]
    fn no_format_adds_more_than_the_most() {
        let len = |parts: &[&str]| parts.iter().map(|part| part.len()).sum::<usize>();
        for format in ChatFormat::ALL {
            for role in [Role::System, Role::User, Role::Assistant] {
                let before = len(&[format.closing(Role::Assistant)]) + len(&format.preamble(role));
                let turn = len(&format.opening(role)) + len(&[format.closing(role)]);
                let added = before + turn + len(&format.answer());
                assert!(added <= MOST_ADDED, "{format:?} adds {added} bytes to a turn of the {}", role.name());
            }
        }
    }

    #[test]
    fn formats_as_the_models_templates_do() {
        let turns = [Turn { role: Role::System, text: "Be brief." }, Turn { role: Role::User, text: "Hi" }];
        let format = |f: ChatFormat| {
            let mut out = String::new();
            f.write(&turns, &mut out).unwrap();
            out
        };
        assert_eq!(
            format(ChatFormat::ChatMl),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(
            format(ChatFormat::Llama3),
            "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\
             \n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        );
        let gemma = "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n";
        assert_eq!(format(ChatFormat::Gemma), gemma);
        assert_eq!(format(ChatFormat::Zephyr), "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n");
    }
}
