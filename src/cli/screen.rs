//! Standard error, shared between a progress bar and the log: a line never lands in the middle of a bar.

use indicatif::{MultiProgress, ProgressBar};
use std::io::{self, IsTerminal, Write};

/// Standard error of this process. Clones share the bar.
#[derive(Clone, Debug)]
pub struct Screen {
    bars: MultiProgress,
    terminal: bool,
}

impl Screen {
    /// The one of this process.
    pub fn stderr() -> Self {
        Self { bars: MultiProgress::new(), terminal: io::stderr().is_terminal() }
    }

    /// Whether a bar can be seen.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows a bar.
    pub(crate) fn show(&self, bar: ProgressBar) -> ProgressBar {
        self.bars.add(bar)
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bars.suspend(|| io::stderr().write_all(bytes))
    }

    /// Whole, so that the bar is not drawn again between the pieces of a line.
    fn write_fmt(&mut self, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.write_all(text.to_string().as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
