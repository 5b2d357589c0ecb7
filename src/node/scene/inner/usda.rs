//! Layers that a USD file written as text names.
//!
//! Only as much of the grammar as tells a path from text and comments, and what it is the value of: it can be damaged
//! anywhere and never makes this fail.

use super::{At, Named, name};
use std::ops::Range;

/// Deepest nesting whose keys are remembered; deeper ones count for nothing (guess: no layer has a hundred).
const DEPTH_MAX: usize = 256;

/// The layers that `text` names.
pub(super) fn named(text: &[u8]) -> Vec<Named> {
    let mut scan = Scan { text, at: 0 };
    let mut found = Vec::new();
    // The last word, the key it became by `=`, and the keys of the brackets around.
    let (mut word, mut key) = (0..0, 0..0);
    let mut around: Vec<Range<usize>> = Vec::new();
    let mut depth = 0_usize;
    while let Some(token) = scan.next() {
        let of = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
        let in_clips = || around.iter().any(|key| of(key) == b"clips");
        match token {
            Token::Word(range) => word = range,
            Token::Sign(b'=') => key = word.clone(),
            Token::Sign(b'(' | b'[' | b'{') => {
                depth += 1;
                if depth <= DEPTH_MAX {
                    around.push(key.clone());
                }
            }
            Token::Sign(b')' | b']' | b'}') => {
                if depth <= DEPTH_MAX {
                    key = around.pop().unwrap_or(0..0);
                }
                depth = depth.saturating_sub(1);
            }
            Token::Sign(_) => {}
            Token::Path(at) => {
                let is_layer = match of(&key) {
                    b"subLayers" | b"references" | b"payload" => true,
                    b"assetPaths" | b"manifestAssetPath" => in_clips(),
                    _ => false,
                };
                if let Some(text) = name(of(&at)).filter(|_| is_layer) {
                    found.push(Named { text, at: At::Bytes(at), template: false });
                }
            }
            Token::Text(at) => {
                let is_template = of(&key) == b"templateAssetPath" && in_clips();
                if let Some(text) = name(of(&at)).filter(|text| is_template && !text.contains('\\')) {
                    found.push(Named { text, at: At::Bytes(at), template: true });
                }
            }
        }
    }
    found
}

enum Token {
    Word(Range<usize>),
    /// A path without its `@`.
    Path(Range<usize>),
    /// A text without its quotes.
    Text(Range<usize>),
    Sign(u8),
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn next(&mut self) -> Option<Token> {
        loop {
            let rest = self.text.get(self.at..)?;
            match rest {
                [] => return None,
                [b'#', ..] | [b'/', b'/', ..] => self.at += until(rest, b"\n").unwrap_or(rest.len()),
                [b'/', b'*', ..] => self.at += until(rest, b"*/").map_or(rest.len(), |end| end + 2),
                [b'@', b'@', b'@', ..] => return Some(Token::Path(self.quoted(b"@@@"))),
                [b'@', ..] => return Some(Token::Path(self.quoted(b"@"))),
                [b'"', b'"', b'"', ..] => return Some(Token::Text(self.quoted(b"\"\"\""))),
                [b'\'', b'\'', b'\'', ..] => return Some(Token::Text(self.quoted(b"'''"))),
                [b'"', ..] => return Some(Token::Text(self.quoted(b"\""))),
                [b'\'', ..] => return Some(Token::Text(self.quoted(b"'"))),
                // The path of a prim.
                [b'<', ..] => self.at += until(rest, b">").map_or(1, |end| end + 1),
                [first, ..] if is_word(*first) => {
                    let len = rest.iter().take_while(|byte| is_word(**byte)).count();
                    self.at += len;
                    return Some(Token::Word(self.at - len..self.at));
                }
                [first, ..] => {
                    self.at += 1;
                    if !first.is_ascii_whitespace() {
                        return Some(Token::Sign(*first));
                    }
                }
            }
        }
    }

    /// From this quote to the next like it; in texts a backslash keeps one from counting.
    fn quoted(&mut self, quote: &[u8]) -> Range<usize> {
        let start = self.at + quote.len();
        let escapes = quote != b"@";
        let mut at = start;
        while let Some(rest) = self.text.get(at..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with(quote) {
                self.at = at + quote.len();
                return start..at;
            }
            at += if escapes && rest.first() == Some(&b'\\') { 2 } else { 1 };
        }
        self.at = self.text.len();
        start.min(self.at)..self.at
    }
}

fn until(rest: &[u8], what: &[u8]) -> Option<usize> {
    rest.windows(what.len()).position(|window| window == what)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':') || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        named(text.as_bytes()).into_iter().map(|named| named.text).collect()
    }

    #[test]
    fn layers_are_told_from_textures_texts_and_comments() {
        let text = r#"#usda 1.0 (subLayers = [@no.usda@])
( doc = "references = @no.usda@ \" payload = @no@"
  """ subLayers = @no.usda@ """
  subLayers = [ @./a.usda@ (offset = 1; scale = 2), # @no.usda@
                @@@b@c.usda@@@ ] /* payload = @no.usda@ */
  customLayerData = { asset of = @no.usda@ } )
def "x" ( prepend references = [@c.usda@</p>, </inside>, @@</p>]
          payload = @d.usdz[e.usda]@<@no.usda@> (scale = 2)
          clips = { dictionary default = { asset[] assetPaths = [@e.usda@, @f.usda@]; asset manifestAssetPath = @g.usda@
                    string templateAssetPath = "h.###.usda" } } )
{ asset inputs:file = @wood.png@ asset[] assetPaths = [@no.usda@] string templateAssetPath = "no.#.usda" }"#;
        assert_eq!(
            names(text),
            ["./a.usda", "b@c.usda", "c.usda", "d.usdz[e.usda]", "e.usda", "f.usda", "g.usda", "h.###.usda"]
        );
        let all = named(text.as_bytes());
        assert!(all.iter().all(|named| matches!(&named.at, At::Bytes(at) if text[at.clone()] == named.text)));
        assert_eq!(all.iter().filter(|named| named.template).count(), 1);
    }

    #[test]
    fn text_that_ends_anywhere_or_nests_without_end_is_read_to_its_end() {
        let text = "a = @x@ \"y\\\" /* z */ <p> ''' ( [ subLayers = @@@q@@@";
        for end in 0..text.len() {
            names(&text[..end]);
        }
        assert_eq!(
            names(&format!("{}subLayers = @x@{}\nsubLayers = @y@", "(".repeat(9999), ")".repeat(9999))),
            ["x", "y"]
        );
    }
}
