//! Two texts line by line.

use serde::Serialize;

/// A line of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// `same`, `out`, `in`, or `skip` for lines that are left out.
    pub(super) kind: &'static str,
    /// Its number in the new text, or in the old one for a line that went out; 0 for `skip`.
    pub(super) number: usize,
    /// The line; for `skip` how many.
    pub(super) text: String,
}

/// What became of `old`: lines that went and came, with three lines around each; empty if nothing changed.
pub(super) fn diff(old: &str, new: &str) -> Vec<Line> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (from, to) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    if from.is_empty() && to.is_empty() {
        return Vec::new();
    }
    let mut all: Vec<Line> = new[..head].iter().enumerate().map(|(n, text)| line("same", n + 1, text)).collect();
    middle(from, to, head, &mut all);
    all.extend(
        new[new.len() - tail..].iter().enumerate().map(|(n, text)| line("same", new.len() - tail + n + 1, text)),
    );
    folded(all)
}

/// The longest common lines; two texts that differ too much are simply replaced.
fn middle(from: &[&str], to: &[&str], head: usize, all: &mut Vec<Line>) {
    let (n, m) = (from.len(), to.len());
    let out = |i: usize| line("out", head + i + 1, from[i]);
    let put = |j: usize| line("in", head + j + 1, to[j]);
    if n.saturating_mul(m) > MOST_CELLS {
        all.extend((0..n).map(out));
        all.extend((0..m).map(put));
        return;
    }
    let at = |i: usize, j: usize| i * (m + 1) + j;
    let mut common = vec![0u32; (n + 1) * (m + 1)];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            common[at(i, j)] = if from[i] == to[j] {
                common[at(i + 1, j + 1)] + 1
            } else {
                common[at(i + 1, j)].max(common[at(i, j + 1)])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < n || j < m {
        if i < n && j < m && from[i] == to[j] {
            all.push(line("same", head + j + 1, to[j]));
            (i, j) = (i + 1, j + 1);
        } else if j == m || (i < n && common[at(i + 1, j)] >= common[at(i, j + 1)]) {
            all.push(out(i));
            i += 1;
        } else {
            all.push(put(j));
            j += 1;
        }
    }
}

/// Leaves out what is far from any change.
fn folded(all: Vec<Line>) -> Vec<Line> {
    let changed: Vec<usize> = (0..all.len()).filter(|&n| all[n].kind != "same").collect();
    let is_near = |n: usize| {
        let next = changed.partition_point(|&at| at < n);
        let before = next.checked_sub(1).map(|at| n - changed[at]);
        let after = changed.get(next).map(|at| at - n);
        before.is_some_and(|d| d <= AROUND) || after.is_some_and(|d| d <= AROUND)
    };
    let mut kept = Vec::new();
    let mut skipped = 0;
    let skip = |skipped: &mut usize, kept: &mut Vec<Line>| {
        if *skipped > 0 {
            kept.push(line("skip", 0, &super::look::count(*skipped, "line", "lines")));
            *skipped = 0;
        }
    };
    for (n, item) in all.into_iter().enumerate() {
        if is_near(n) {
            skip(&mut skipped, &mut kept);
            kept.push(item);
        } else {
            skipped += 1;
        }
    }
    skip(&mut skipped, &mut kept);
    kept
}

fn line(kind: &'static str, number: usize, text: &str) -> Line {
    Line { kind, number, text: text.to_owned() }
}

const AROUND: usize = 3;
/// Four megabytes of table.
const MOST_CELLS: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> String {
        let sign = |kind| match kind {
            "in" => '+',
            "out" => '-',
            "skip" => '~',
            _ => ' ',
        };
        diff(old, new).iter().map(|l| format!("{}{}:{}\n", sign(l.kind), l.number, l.text)).collect()
    }

    #[test]
    fn changes_are_shown_with_three_lines_around() {
        assert_eq!(diff("a\nb", "a\nb"), []);
        assert_eq!(shown("a\nb\nc", "a\nx\nc"), " 1:a\n-2:b\n+2:x\n 3:c\n");
        let many: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let changed = many.replace("10\n", "ten\n");
        let expected = "~0:6 lines\n 7:7\n 8:8\n 9:9\n-10:10\n+10:ten\n 11:11\n 12:12\n 13:13\n~0:7 lines\n";
        assert_eq!(shown(&many, &changed), expected);
        assert_eq!(shown("", "a"), "+1:a\n");
        assert_eq!(shown("a\nb\nc\nd", "b\nx\nd\ne"), "-1:a\n 1:b\n-3:c\n+2:x\n 3:d\n+4:e\n");
    }

    #[test]
    fn what_differs_wholly_is_replaced_without_a_table() {
        let old: String = (0..2000).map(|n| format!("a{n}\n")).collect();
        let new: String = (0..2000).map(|n| format!("b{n}\n")).collect();
        let lines = diff(&old, &new);
        assert_eq!(lines.len(), 4000);
        assert_eq!((lines[0].kind, lines[3999].kind), ("out", "in"));
    }
}
