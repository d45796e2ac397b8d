//! A table with aligned and coloured columns.

use crate::terminal::Paint;

/// The colour of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// No colour.
    Plain,
    /// Red: an error.
    Bad,
    /// Yellow: possibly an error.
    Doubtful,
    /// Dimmed: not important.
    Dim,
}

/// The text of a cell and its colour.
pub(super) type Cell = (String, Tone);

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Left-aligned, for words.
    Left,
    /// Right-aligned, for numbers.
    Right,
}

/// Formats a table with a head; every row has a cell for each column.
pub(super) fn table(head: &[(&str, Side)], rows: &[Vec<Cell>], paint: Paint) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.chars().count());
        cells.chain([head[column].0.len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let heads: Vec<Cell> = head.iter().map(|(text, _)| ((*text).to_owned(), Tone::Dim)).collect();
    let mut lines = String::new();
    for row in [&heads].into_iter().chain(rows) {
        let cells = row.iter().zip(head).zip(&widths);
        let cells: Vec<String> = cells.map(|((cell, (_, side)), width)| pad(cell, *side, *width, paint)).collect();
        lines += cells.join("  ").trim_end();
        lines.push('\n');
    }
    lines
}

fn pad((text, tone): &Cell, side: Side, width: usize, paint: Paint) -> String {
    let space = " ".repeat(width.saturating_sub(text.chars().count()));
    let painted = match tone {
        Tone::Plain => text.clone(),
        Tone::Bad => paint.red(text),
        Tone::Doubtful => paint.yellow(text),
        Tone::Dim => paint.dim(text),
    };
    match side {
        Side::Left => painted + &space,
        Side::Right => space + &painted,
    }
}
