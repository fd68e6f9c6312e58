//! Text with a meaning instead of a colour, measured in terminal columns.
//!
//! Whatever comes from outside (names, details, log lines) passes through [`Span`], which makes control characters
//! visible: no child can send escape sequences to the terminal of whoever looks at it.

use std::fmt::Write as _;

/// What a piece of text means; how that looks is decided in [`Line::render`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Dim,
    Good,
    Warn,
    Bad,
    /// The chosen line of a list.
    Chosen,
}

/// Text in one tone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    text: String,
    tone: Tone,
}

impl Span {
    pub(crate) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: visible(text.as_ref()), tone }
    }
}

/// One line on the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<Span>);

impl Line {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn plain(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self(vec![Span::new(text, tone)])
    }

    pub(crate) fn push(&mut self, text: impl AsRef<str>, tone: Tone) {
        self.0.push(Span::new(text, tone));
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// The columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|span| width(&span.text)).sum()
    }

    /// Filled with spaces up to `columns`.
    pub(crate) fn padded(mut self, columns: usize) -> Self {
        let missing = columns.saturating_sub(self.width());
        if missing > 0 {
            self.push(" ".repeat(missing), Tone::Plain);
        }
        self
    }

    /// Pushed to the right edge of `columns`.
    pub(crate) fn right(self, columns: usize) -> Self {
        let missing = columns.saturating_sub(self.width());
        let mut line = Self::plain(" ".repeat(missing));
        line.append(self);
        line
    }

    /// At most `columns` wide; what is cut off shows as `…`.
    pub(crate) fn fitted(self, columns: usize) -> Self {
        if self.width() <= columns {
            return self;
        }
        let mut left = columns.saturating_sub(1);
        let mut out = Self::new();
        for Span { text, tone } in self.0 {
            let kept = head(&text, left);
            left -= width(kept);
            let cut = kept.len() < text.len();
            if !kept.is_empty() {
                out.0.push(Span { text: kept.to_owned(), tone });
            }
            if cut {
                if columns > 0 {
                    out.push("…", tone);
                }
                break;
            }
        }
        out
    }

    /// All of it in one tone, as wide as `columns`.
    pub(crate) fn chosen(self, columns: usize) -> Self {
        let text: String = self.fitted(columns).padded(columns).0.into_iter().map(|span| span.text).collect();
        Self(vec![Span { text, tone: Tone::Chosen }])
    }

    /// As text, with escape sequences only if `colour`; without an end of line.
    pub(crate) fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for Span { text, tone } in &self.0 {
            match code(*tone) {
                Some(code) if colour => {
                    let _ = write!(out, "\x1b[{code}m{text}\x1b[0m");
                }
                _ => out.push_str(text),
            }
        }
        if colour { out } else { out.trim_end().to_owned() }
    }
}

/// Pieces side by side with a dot between, on a new line where one is full.
pub(crate) fn flowed(pieces: impl IntoIterator<Item = Line>, columns: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for piece in pieces {
        match lines.last_mut() {
            Some(line) if line.width() + 3 + piece.width() <= columns => {
                line.push(" · ", Tone::Dim);
                line.append(piece);
            }
            _ => lines.push(piece.fitted(columns)),
        }
    }
    lines
}

/// The columns `text` takes in a terminal.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// As much of the beginning of `text` as `columns` hold.
pub(crate) fn head(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += char_width(c);
        if used > columns {
            return &text[..at];
        }
    }
    text
}

/// `text` broken into lines of at most `columns`, between words where that is possible.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let mut word = word;
            if !line.is_empty() && width(&line) + 1 + width(word) > columns {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            while width(word) > columns {
                let first = head(word, columns);
                // A character wider than the whole line: nothing sensible is left to show.
                if first.is_empty() {
                    return lines;
                }
                lines.push(first.to_owned());
                word = &word[first.len()..];
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// Control characters made visible, everything else as it is.
fn visible(text: &str) -> String {
    if !text.chars().any(is_unsafe) {
        return text.to_owned();
    }
    text.chars().map(|c| if is_unsafe(c) { '·' } else { c }).collect()
}

/// Characters that steer a terminal, or the direction of writing, instead of being shown.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Columns of one character: 0 for marks that combine, 2 for East Asian and pictorial ones (Unicode Annex 11), else 1.
fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x0483..=0x0489 | 0x0591..=0x05bd | 0x064b..=0x065f | 0x0e34..=0x0e3a | 0x1ab0..=0x1aff => 0,
        0x1dc0..=0x1dff | 0x200b..=0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f | 0xe0100..=0xe01ef => {
            0
        }
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xa960..=0xa97f | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1f6ff => 2,
        0x1f900..=0x1f9ff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Select Graphic Rendition of ECMA-48; only colours that can be read on light and dark ground.
fn code(tone: Tone) -> Option<&'static str> {
    match tone {
        Tone::Plain => None,
        Tone::Strong => Some("1"),
        Tone::Dim => Some("2"),
        Tone::Good => Some("32"),
        Tone::Warn => Some("33"),
        Tone::Bad => Some("1;31"),
        Tone::Chosen => Some("7"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_columns_not_bytes() {
        for (text, columns) in [("abc", 3), ("° µ", 3), ("▲●", 2), ("漢字", 4), ("e\u{301}", 1), ("", 0)] {
            assert_eq!(width(text), columns, "{text}");
        }
    }

    #[test]
    fn a_line_is_cut_at_a_column_with_a_mark() {
        let mut line = Line::plain("ab");
        line.push("漢字cd", Tone::Bad);
        for (columns, expected) in
            [(0, ""), (1, "…"), (3, "ab…"), (4, "ab…"), (5, "ab漢…"), (8, "ab漢字cd"), (9, "ab漢字cd")]
        {
            let cut = line.clone().fitted(columns);
            assert_eq!(cut.render(false), expected, "{columns}");
            assert!(cut.width() <= columns);
        }
        assert_eq!(Line::plain("7").right(3).render(false), "  7");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        let line = Line::plain("a\x1b[2J\u{202e}b\nc\u{9b}d");
        assert_eq!(line.render(true), "a·[2J·b·c·d");
    }

    #[test]
    fn colours_are_only_used_when_asked_for() {
        let line = Line::toned("x", Tone::Bad);
        assert_eq!(line.render(false), "x");
        assert_eq!(line.render(true), "\x1b[1;31mx\x1b[0m");
    }

    #[test]
    fn long_text_wraps_between_words_and_long_words_within() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrapped("a\nb", 4), ["a", "b"]);
        assert_eq!(wrapped("漢字", 1), [""; 0]);
    }
}
