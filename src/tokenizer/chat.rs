//! Built-in chat formats, for files without a chat template and for firmware, which has no template engine.

use core::fmt::{self, Write};

use super::Tokenizer;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatFormat {
    /// `<|im_start|>user\n…<|im_end|>\n`: Qwen, SmolLM2 and many others.
    ChatMl,
    /// `<|start_header_id|>user<|end_header_id|>\n\n…<|eot_id|>`: Llama 3.
    Llama3,
    /// `<start_of_turn>user\n…<end_of_turn>\n`: Gemma. It has no system role: a system message becomes one of the user.
    Gemma,
    /// `<|user|>\n…</s>\n`: Zephyr, TinyLlama.
    Zephyr,
}

impl ChatFormat {
    /// The format whose control tokens the vocabulary has.
    pub fn detect(tokenizer: &Tokenizer<'_>) -> Option<ChatFormat> {
        let marks = [
            ("<|im_start|>", ChatFormat::ChatMl),
            ("<|start_header_id|>", ChatFormat::Llama3),
            ("<start_of_turn>", ChatFormat::Gemma),
            ("<|user|>", ChatFormat::Zephyr),
        ];
        marks.into_iter().find(|(mark, _)| tokenizer.find(mark.as_bytes()).is_some()).map(|(_, format)| format)
    }

    /// Writes `turns`, then the start of an answer. The BOS token is left to
    /// [`EncodeOptions::add_special`](super::EncodeOptions).
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, turns: &[Turn<'_>], out: &mut dyn Write) -> fmt::Result {
        for turn in turns {
            self.opening(turn.role).iter().try_for_each(|part| out.write_str(part))?;
            out.write_str(self.text(turn.text))?;
            out.write_str(self.closing())?;
        }
        self.opening(Role::Assistant).iter().try_for_each(|part| out.write_str(part))
    }

    /// A turn's text as the format writes it: Gemma's own template trims it.
    pub fn text(self, text: &str) -> &str {
        if self == ChatFormat::Gemma { text.trim() } else { text }
    }

    /// The text before a turn's own.
    pub const fn opening(self, role: Role) -> [&'static str; 3] {
        let name = match (self, role) {
            (ChatFormat::Gemma, Role::Assistant) => "model",
            (ChatFormat::Gemma, _) => "user",
            _ => role.name(),
        };
        match self {
            ChatFormat::ChatMl => ["<|im_start|>", name, "\n"],
            ChatFormat::Llama3 => ["<|start_header_id|>", name, "<|end_header_id|>\n\n"],
            ChatFormat::Gemma => ["<start_of_turn>", name, "\n"],
            ChatFormat::Zephyr => ["<|", name, "|>\n"],
        }
    }

    /// The text after a turn's own, and after the model's answer.
    pub const fn closing(self) -> &'static str {
        match self {
            ChatFormat::ChatMl => "<|im_end|>\n",
            ChatFormat::Llama3 => "<|eot_id|>",
            ChatFormat::Gemma => "<end_of_turn>\n",
            ChatFormat::Zephyr => "</s>\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

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
        let gemma =
            "<start_of_turn>user\nBe brief.<end_of_turn>\n<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n";
        assert_eq!(format(ChatFormat::Gemma), gemma);
        assert_eq!(format(ChatFormat::Zephyr), "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n");
    }
}
