//! The output: a JSON line for each measurement, tables of medians, and charts.

use serde_json::{Map, Value};

use crate::rows::{Row, Section};

/// The figures of a measurement, with their names. The first one is compared with that of another row.
pub type Figures = Vec<(String, f64)>;

/// Names figures.
pub fn figures<const N: usize>(named: [(&str, f64); N]) -> Figures {
    named.map(|(name, figure)| (name.to_owned(), figure)).into()
}

/// Returns a measurement as a JSON line.
pub fn line(number: usize, name: &str, figures: &Figures) -> String {
    let mut line = Map::from_iter([("row".to_owned(), number.into()), ("name".to_owned(), name.into())]);
    line.extend(figures.iter().map(|(name, figure)| (name.clone(), (*figure).into())));
    Value::Object(line).to_string()
}

/// Prints the tables and charts of all rows that were measured.
pub fn print_tables(sections: &[Section], measured: &[Vec<Figures>]) {
    let mut first = 0;
    for section in sections {
        let rounds = &measured[first..first + section.rows.len()];
        let medians: Vec<Figures> = rounds.iter().map(|rounds| medians(rounds)).collect();
        if let Some(names) = medians.iter().find(|figures| !figures.is_empty()) {
            println!("\n### {}\n", section.title);
            print_table(first, &section.rows, names, &medians);
        }
        if let (Some([x, y]), Some(points)) = (section.chart, medians.first().filter(|points| !points.is_empty())) {
            print_chart(x, y, points);
        }
        first += section.rows.len();
    }
}

fn medians(rounds: &[Figures]) -> Figures {
    let Some(first) = rounds.first() else { return Figures::new() };
    let median = |at: usize| {
        let mut figures: Vec<f64> = rounds.iter().map(|figures| figures[at].1).collect();
        figures.sort_by(f64::total_cmp);
        f64::midpoint(figures[(figures.len() - 1) / 2], figures[figures.len() / 2])
    };
    first.iter().enumerate().map(|(at, (name, _))| (name.clone(), median(at))).collect()
}

fn print_table(first: usize, rows: &[Row], names: &Figures, medians: &[Figures]) {
    let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    let is_compared = rows.iter().any(|row| row.beside.is_some());
    let ratio = if is_compared { " ratio |" } else { "" };
    println!("| row | |{ratio} {} |", names.join(" | "));
    println!("| --- | --- |{}{}", if is_compared { " --- |" } else { "" }, " --- |".repeat(names.len()));
    for (at, row) in rows.iter().enumerate().filter(|(at, _)| !medians[*at].is_empty()) {
        let cells: Vec<String> = medians[at].iter().map(|(_, figure)| written(*figure)).collect();
        let ratio = row.beside.map_or_else(String::new, |beside| {
            let other = medians[beside].first().map(|(_, figure)| medians[at][0].1 / figure);
            format!(" {} |", other.map_or_else(String::new, |ratio| format!("{ratio:.2}")))
        });
        println!("| {} | {} |{ratio} {} |", first + at, row.name, cells.join(" | "));
    }
}

fn print_chart(x: &str, y: &str, points: &Figures) {
    let values = |value: fn(&(String, f64)) -> String| points.iter().map(value).collect::<Vec<_>>().join(", ");
    println!("\n```mermaid\nxychart-beta");
    println!("    x-axis \"{x}\" [{}]", values(|(name, _)| format!("\"{name}\"")));
    println!("    y-axis \"{y}\" 0 --> {:.0}", points.iter().map(|(_, figure)| figure * 1.1).fold(0.0, f64::max));
    println!("    line [{}]\n```", values(|(_, figure)| format!("{figure:.0}")));
}

fn written(figure: f64) -> String {
    match figure {
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        1.0.. => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}
