//! Variables in the values of a configuration, filled in as OpenColorIO does.
//!
//! Input is untrusted, and a short text can stand for any length: what comes of one value has a bound, and so has all the
//! work for the values of a configuration.

use super::config::{ConfigError, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Longest value with its variables filled in, bytes (guess: a path).
pub const VALUE_MAX_BYTES: usize = 4096;
/// Longest name of a variable that is looked for, bytes (guess).
const NAME_MAX_BYTES: usize = 128;
/// How often what a variable stands for is looked through for further ones (guess).
const NESTED_MAX: usize = 8;
/// Most bytes read and written for the values of one configuration (guess; a second or two at worst).
const WORK_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Fills in the variables of one configuration.
pub struct Filler<'a> {
    /// The configuration's variables with what they stand for unless the shell says otherwise; where there is a list, no
    /// others count.
    own: Option<&'a BTreeMap<String, String>>,
    /// What a variable of this name is in the shell.
    shell: &'a mut dyn FnMut(&str) -> Option<Cow<'a, str>>,
    left_bytes: usize,
}

impl<'a> Filler<'a> {
    pub(super) fn new(
        own: Option<&'a BTreeMap<String, String>>,
        shell: &'a mut dyn FnMut(&str) -> Option<Cow<'a, str>>,
    ) -> Self {
        Self { own, shell, left_bytes: WORK_MAX_BYTES }
    }

    /// `value` with its variables replaced. Those that nobody knows stay.
    pub fn fill(&mut self, value: &Value) -> Result<String, ConfigError> {
        let mut text = value.text.clone();
        for _ in 0..NESTED_MAX {
            if !text.contains(['$', '%']) {
                break;
            }
            let next = Some(&text).filter(|text| text.len() <= VALUE_MAX_BYTES).and_then(|text| self.once(text));
            let next = next.ok_or(ConfigError::Long(value.line()))?;
            let left = self.left_bytes.checked_sub(text.len() + next.len());
            self.left_bytes = left.ok_or(ConfigError::Large)?;
            if next == text {
                break;
            }
            text = next;
        }
        Ok(text)
    }

    /// `None`: it would be too long.
    fn once(&mut self, text: &str) -> Option<String> {
        let (mut next, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['$', '%']) {
            let (before, from) = rest.split_at(at);
            next.push_str(before);
            let (len, value) = self.variable(from).unwrap_or((1, Cow::from(&from[..1])));
            if next.len() + value.len() > VALUE_MAX_BYTES {
                return None;
            }
            next.push_str(&value);
            rest = &from[len..];
        }
        next.push_str(rest);
        (next.len() <= VALUE_MAX_BYTES).then_some(next)
    }

    /// The variable that `text`, which begins with `$` or `%`, begins with: how long that is and what it stands for.
    fn variable<'t>(&mut self, text: &'t str) -> Option<(usize, Cow<'t, str>)>
    where
        'a: 't,
    {
        let until = |rest: &'t str, end| {
            let (at, _) = rest.char_indices().take(NAME_MAX_BYTES + 1).find(|(_, c)| *c == end)?;
            Some(&rest[..at])
        };
        if let Some(rest) = text.strip_prefix('%') {
            let name = until(rest, '%')?;
            return Some((name.len() + 2, self.known(name)?));
        }
        if let Some(name) = text.strip_prefix("${").and_then(|rest| until(rest, '}'))
            && let Some(value) = self.known(name)
        {
            return Some((name.len() + 3, value));
        }
        let rest = text.strip_prefix('$')?;
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let longest = rest.bytes().take(NAME_MAX_BYTES).take_while(is_part).count();
        // Of names that begin alike the longest counts.
        (1..=longest).rev().find_map(|len| Some((len + 1, self.known(&rest[..len])?)))
    }

    fn known(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let default = match self.own {
            None if name.is_empty() => return None,
            None => None,
            Some(own) => Some(Cow::from(own.get(name)?)),
        };
        (self.shell)(name).or(default)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::config::Config;
    use super::*;

    /// What the first file of a configuration is called where the shell has these.
    fn filled(config: &str, shell: &[(&str, &str)]) -> Result<String, ConfigError> {
        let config = Config::parse(&format!("ocio_profile_version: 2\n{config}")).unwrap();
        let shell: BTreeMap<&str, &str> = shell.iter().copied().collect();
        let mut shell = |name: &str| shell.get(name).map(|value| Cow::from(value.to_string()));
        config.filler(&mut shell).fill(&config.files[0].src)
    }

    #[test]
    fn variables_are_filled_in_as_opencolorio_does() {
        const SHELL: [(&str, &str); 5] =
            [("SHOT", "sh1"), ("SHOT_A", "a"), ("NEST", "<${SHOT}>"), ("SELF", "$SELF"), ("A.B", "c")];
        let named = |src: &str, head: &str| filled(&format!("{head}x: !<FileTransform> {{src: \"{src}\"}}"), &SHELL);
        for (src, all, listed, none) in [
            ("${SHOT}.cc", "sh1.cc", "sh1.cc", "${SHOT}.cc"),
            ("%SHOT%.cc 100%", "sh1.cc 100%", "sh1.cc 100%", "%SHOT%.cc 100%"),
            // Measured with OpenColorIO 2.6: the longest name that fits, whatever follows.
            ("$SHOTx", "sh1x", "sh1x", "$SHOTx"),
            ("$SHOT_Ax", "ax", "sh1_Ax", "$SHOT_Ax"),
            ("$NEST", "<sh1>", "$NEST", "$NEST"),
            ("$SELF$NO$", "$SELF$NO$", "$SELF$NO$", "$SELF$NO$"),
            ("${A.B}$é${", "c$é${", "${A.B}$é${", "${A.B}$é${"),
            ("$LATER", "$LATER", "later", "$LATER"),
        ] {
            assert_eq!(named(src, "").as_deref(), Ok(all), "{src}");
            assert_eq!(named(src, "environment: {SHOT: none, LATER: later}\n").as_deref(), Ok(listed), "{src}");
            // Measured with OpenColorIO 2.6: an empty list is one.
            assert_eq!(named(src, "environment: {}\n").as_deref(), Ok(none), "{src}");
            assert_eq!(named(src, "environment:\n").as_deref(), Ok(all), "{src}");
        }
    }

    #[test]
    fn what_variables_stand_for_has_a_bound() {
        let head = |value: String| format!("environment: {{A: {value}, B: $A$A$A$A}}\n");
        let with = |value: String, src: &str| filled(&(head(value) + "x: !<FileTransform> {src: " + src + "}"), &[]);
        let longest = VALUE_MAX_BYTES;
        assert_eq!(with("a".repeat(longest), "$A").unwrap().len(), longest);
        assert_eq!(with("a".repeat(longest), "x$A"), Err(ConfigError::Long(3)));
        assert_eq!(with("a".repeat(8_000_000), "$A"), Err(ConfigError::Long(3)));
        assert_eq!(with("a".repeat(longest / 2), "$B"), Err(ConfigError::Long(3)));
        assert_eq!(with("$A$A$A$A".into(), "$B"), Err(ConfigError::Long(3)));
        assert_eq!(with("a".into(), &"$".repeat(longest + 1)), Err(ConfigError::Long(3)));
    }

    #[test]
    fn all_the_values_of_a_configuration_together_have_a_bound() {
        let files = "!<FileTransform> {src: $A},".repeat(10_000);
        let text = format!("ocio_profile_version: 2\nenvironment: {{A: {}}}\nx: [{files}]", "a".repeat(4000));
        let config = Config::parse(&text).unwrap();
        let mut shell = |_: &str| None;
        let mut filler = config.filler(&mut shell);
        let filled = config.files.iter().map(|file| filler.fill(&file.src)).take_while(Result::is_ok).count();
        assert!((1000..=WORK_MAX_BYTES / 4000).contains(&filled), "{filled}");
    }

    #[test]
    fn names_are_looked_up_and_not_tried_one_by_one() {
        let names: String = (0..100_000).map(|name| format!("V{name}: x,")).collect();
        let text =
            format!("ocio_profile_version: 2\nenvironment: {{{names}}}\nx: !<FileTransform> {{src: $V7$W$%V9%}}");
        let config = Config::parse(&text).unwrap();
        let mut looked_up = 0;
        let mut shell = |_: &str| {
            looked_up += 1;
            None
        };
        assert_eq!(config.filler(&mut shell).fill(&config.files[0].src).as_deref(), Ok("x$W$x"));
        assert_eq!(looked_up, 2);
    }
}
