//! Whether Blender evaluates a driver's expression by itself, without Python.
//!
//! It does for a small language, whether or not scripts in files may run. Which one was measured with
//! `Driver.is_simple_expression` of Blender 3.4 and 4.5.

/// Deepest nesting looked into: more than the 255 characters of an expression can hold.
const MAX_DEPTH: usize = 256;
/// Functions, each with the least and the greatest number of arguments.
const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("radians", 1, 1),
    ("degrees", 1, 1),
    ("abs", 1, 1),
    ("fabs", 1, 1),
    ("floor", 1, 1),
    ("ceil", 1, 1),
    ("trunc", 1, 1),
    ("round", 1, 1),
    ("int", 1, 1),
    ("sin", 1, 1),
    ("cos", 1, 1),
    ("tan", 1, 1),
    ("asin", 1, 1),
    ("acos", 1, 1),
    ("atan", 1, 1),
    ("atan2", 2, 2),
    ("exp", 1, 1),
    ("log", 1, 2),
    ("sqrt", 1, 1),
    ("pow", 2, 2),
    ("fmod", 2, 2),
    ("lerp", 3, 3),
    ("clamp", 1, 1),
    ("clamp", 3, 3),
    ("smoothstep", 3, 3),
    ("min", 1, usize::MAX),
    ("max", 1, usize::MAX),
];
const CONSTANTS: &[&str] = &["pi", "True", "False"];

/// Whether `expression`, of a driver with these variables, is one that Blender evaluates by itself.
pub(super) fn is_simple(expression: &str, variables: &[&str]) -> bool {
    let Some(tokens) = tokens(expression) else { return false };
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, variables };
    parser.choice().is_some() && parser.at == tokens.len()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Number,
    Word(&'a str),
    Sign(&'a str),
}

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let len_of = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
        let (token, len) = match first {
            'a'..='z' | 'A'..='Z' | '_' => {
                let len = len_of(|c| c.is_ascii_alphanumeric() || c == '_');
                (Token::Word(&rest[..len]), len)
            }
            '0'..='9' | '.' => (Token::Number, number(rest)?),
            _ => {
                let pair = ["<=", ">=", "==", "!="].into_iter().find(|sign| rest.starts_with(sign));
                let sign = pair.or_else(|| "+-*/(),<>".contains(first).then(|| &rest[..1]))?;
                (Token::Sign(&rest[..sign.len()]), sign.len())
            }
        };
        tokens.push(token);
        rest = rest[len..].trim_start();
    }
    Some(tokens)
}

/// Length of the number that `text` begins with: digits with a point among them, and an exponent.
fn number(text: &str) -> Option<usize> {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut len = whole;
    if text[len..].starts_with('.') {
        len += 1 + digits(len + 1);
    }
    if len == 1 && whole == 0 {
        return None;
    }
    if text[len..].starts_with(['e', 'E']) {
        let sign = usize::from(text[len + 1..].starts_with(['+', '-']));
        let exponent = digits(len + 1 + sign);
        if exponent == 0 {
            return None;
        }
        len += 1 + sign + exponent;
    }
    // Whole numbers do not begin with a zero, as in Python.
    let is_padded = len == whole && text.starts_with('0') && text[..len].bytes().any(|digit| digit != b'0');
    (!is_padded).then_some(len)
}

/// Each rule takes what it accepts, or answers `None`.
struct Parser<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    depth: usize,
    variables: &'a [&'a str],
}

impl Parser<'_> {
    fn takes(&mut self, wanted: Token<'_>) -> bool {
        let is_there = self.tokens.get(self.at) == Some(&wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn takes_any(&mut self, signs: &[&str]) -> bool {
        signs.iter().any(|sign| self.takes(Token::Sign(sign)))
    }

    /// `a if b else c`, the loosest.
    fn choice(&mut self) -> Option<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.alternatives()?;
        if self.takes(Token::Word("if")) {
            self.alternatives()?;
            self.takes(Token::Word("else")).then_some(())?;
            self.choice()?;
        }
        self.depth -= 1;
        Some(())
    }

    fn alternatives(&mut self) -> Option<()> {
        self.conditions()?;
        while self.takes(Token::Word("or")) {
            self.conditions()?;
        }
        Some(())
    }

    fn conditions(&mut self) -> Option<()> {
        self.negation()?;
        while self.takes(Token::Word("and")) {
            self.negation()?;
        }
        Some(())
    }

    fn negation(&mut self) -> Option<()> {
        while self.takes(Token::Word("not")) {}
        self.sum()?;
        while self.takes_any(&["<=", ">=", "==", "!=", "<", ">"]) {
            self.sum()?;
        }
        Some(())
    }

    fn sum(&mut self) -> Option<()> {
        self.product()?;
        while self.takes_any(&["+", "-"]) {
            self.product()?;
        }
        Some(())
    }

    fn product(&mut self) -> Option<()> {
        self.term()?;
        while self.takes_any(&["*", "/"]) {
            self.term()?;
        }
        Some(())
    }

    fn term(&mut self) -> Option<()> {
        while self.takes_any(&["+", "-"]) {}
        if self.takes(Token::Sign("(")) {
            self.choice()?;
            return self.takes(Token::Sign(")")).then_some(());
        }
        let token = *self.tokens.get(self.at)?;
        self.at += 1;
        match token {
            Token::Number => Some(()),
            Token::Word(name) if self.variables.contains(&name) || name == "frame" || CONSTANTS.contains(&name) => {
                Some(())
            }
            Token::Word(name) => {
                let mut known = FUNCTIONS.iter().filter(|(known, ..)| *known == name).peekable();
                known.peek()?;
                let count = self.arguments()?;
                known.any(|(_, least, most)| (*least..=*most).contains(&count)).then_some(())
            }
            Token::Sign(_) => None,
        }
    }

    fn arguments(&mut self) -> Option<usize> {
        self.takes(Token::Sign("(")).then_some(())?;
        let mut count = 0;
        loop {
            self.choice()?;
            count += 1;
            if !self.takes(Token::Sign(",")) {
                return self.takes(Token::Sign(")")).then_some(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `is_simple_expression` of both Blenders has them.
    #[test]
    fn what_blender_evaluates_by_itself_is_told_from_python() {
        let simple = [
            "frame",
            "--var",
            "not not var",
            "var if frame > 3 else 0",
            "1 < var < 3",
            "log(var,2)",
            "min(var)",
            "clamp(var)",
            "clamp(var,0,1)",
            "smoothstep(0,1,var)",
            "1.5e-3",
            ".5",
            "5.",
            "sin (var)",
            "frame*0.1 + sin(frame/10)*2",
            "1 if var else 2 if frame else 3",
            "1+ -2",
            "1.e2",
            "not -var",
            "not var == 1",
            "1if var else 2",
            "not(var)",
            "var<=frame>=1",
            "var\t+ 1",
        ];
        let python = [
            "var ** 2",
            "var // 2",
            "var % 2",
            "round(var,2)",
            "float(var)",
            "min()",
            "clamp(var,1)",
            "len(str(frame))",
            "math.sin(var)",
            "tau",
            "None",
            "0x10",
            "1_000",
            "var[0]",
            "self.location.x",
            "other",
            "5 .0",
            "-not var",
            "var if var",
            "pi()",
            "sin",
            "frame()",
            "1 + not var",
            "1j",
            "1..2",
            "2e",
            "var\tfoo",
            "sin(var,)",
            "sin()",
            "~var",
            "2var",
            "0777",
            "(1,2)",
            "1,2",
            "",
        ];
        for expression in simple {
            assert!(is_simple(expression, &["var"]), "{expression}");
        }
        for expression in python {
            assert!(!is_simple(expression, &["var"]), "{expression}");
        }
        let nested = ["(".repeat(100), "var".into(), ")".repeat(100)].concat();
        assert!(is_simple(&nested, &["var"]));
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let seeds = simple_seeds().map(|text: &str| text.as_bytes().to_vec());
        crate::fuzz::fuzz("expression", crate::fuzz::ROUNDS, seeds.into(), |bytes| {
            is_simple(&String::from_utf8_lossy(bytes), &["var"])
        });
        assert!(!is_simple(&"(".repeat(100_000), &[]) && !is_simple(&"-".repeat(100_000), &[]));
    }

    fn simple_seeds() -> [&'static str; 3] {
        [
            "frame*0.1 + sin(var/10)*2",
            "clamp(var, 0, 1) if not 1 <= frame < 5e3 else max(1, -var)",
            "pow(atan2(1., .5), 2)",
        ]
    }
}
