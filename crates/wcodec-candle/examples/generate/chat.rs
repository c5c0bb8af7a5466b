//! Texts to tokens and back.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use tokenizers::Tokenizer;

/// A tokenizer, and the template of a conversation: ChatML, which SmolLM2 was trained on.
pub(crate) struct Chat {
    tokenizer: Tokenizer,
}

impl Chat {
    pub(crate) fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let tokenizer = Tokenizer::from_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { tokenizer })
    }

    /// A conversation of one question, up to where the answer begins.
    pub(crate) fn ask(&self, system: &str, question: &str) -> Result<Vec<u32>, Box<dyn Error>> {
        let text = format!(
            "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        );
        let encoding = self.tokenizer.encode(text, false).map_err(|error| format!("cannot tokenise: {error}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Prints what `tokens` say beyond the `printed` bytes of it that were printed before; gives the bytes printed now in all.
    pub(crate) fn print(&self, tokens: &[u32], printed: usize) -> Result<usize, Box<dyn Error>> {
        let text = self.tokenizer.decode(tokens, true).map_err(|error| format!("cannot decode tokens: {error}"))?;
        // A character of several tokens is a replacement character until its last one.
        if text.ends_with('\u{fffd}') || text.len() < printed {
            return Ok(printed);
        }
        print!("{}", &text[printed..]);
        std::io::stdout().flush()?;
        Ok(text.len())
    }
}
