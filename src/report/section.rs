//! Parts of a page that come before the runs themselves: what somebody found out about them.

use serde::Serialize;

/// A part of a page, under a heading
#[derive(Debug, Clone, Default, Serialize)]
pub struct Section {
    /// Heading
    pub title: String,
    /// What a reader should know; a paragraph each
    pub notes: Vec<String>,
    /// What the colours mean
    pub legend: Vec<Name>,
    /// Figures side by side
    pub figures: Vec<Figure>,
    /// Rows of figures in digits
    pub table: Option<Table>,
    /// Texts to browse, each with others of the same subject beside it
    pub groups: Vec<Group>,
}

/// A name, with the colour that it has in all figures
#[derive(Debug, Clone, Serialize)]
pub struct Name {
    /// As shown
    pub text: String,
    /// Place in [`super::chart::PALETTE`]
    pub colour: usize,
}

impl Name {
    /// A name and its colour
    pub fn new(text: impl Into<String>, colour: usize) -> Self {
        Self { text: text.into(), colour }
    }
}

/// A drawing
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Caption
    pub title: String,
    /// The drawing, as [`super::chart`] and [`super::scatter`] make it
    pub svg: String,
    /// What the caption leaves out
    pub note: Option<String>,
}

/// A table whose first column holds names
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Headings of the other columns
    pub columns: Vec<String>,
    /// Name and cells of each row
    pub rows: Vec<(Name, Vec<String>)>,
}

/// Texts on one subject
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// The subject
    pub title: String,
    /// The texts
    pub texts: Vec<Text>,
}

/// A text with whose it is and what it is worth
#[derive(Debug, Clone, Serialize)]
pub struct Text {
    /// Whose
    pub name: Name,
    /// Figures about it, ready to be shown
    pub figures: String,
    /// The text
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Run, render_after};

    /// A run that asked two judges, of whom the second pays nothing
    fn run(folder: &std::path::Path) -> Run {
        let row = |step: u32| {
            let x = f64::from(step);
            format!(
                "{{\"step\":{step},\"reward\":{x},\"rewards/model/mean\":{x},\"rewards/lexicon/mean\":{}}}\n",
                x.sqrt()
            )
        };
        std::fs::write(folder.join("metrics.jsonl"), (1..5).map(row).collect::<String>()).unwrap();
        Run::read(folder).unwrap()
    }

    #[test]
    fn a_page_begins_with_its_sections() {
        let folder = tempfile::tempdir().unwrap();
        let name = Name::new("GRPO & friends", 3);
        let section = Section {
            title: "What came of it".to_owned(),
            notes: vec!["a <note>".to_owned()],
            legend: vec![name.clone()],
            table: Some(Table {
                columns: vec!["gold".to_owned()],
                rows: vec![(name.clone(), vec!["+0.5".to_owned()])],
            }),
            groups: vec![Group {
                title: "Review of the inn:".to_owned(),
                texts: vec![Text { name, figures: "gold +0.5".to_owned(), text: "A good inn.".to_owned() }],
            }],
            ..Section::default()
        };
        let page = render_after("demo", &[section], &[run(folder.path())]).unwrap();
        for shown in
            ["<h1>demo</h1>", "What came of it", "a &lt;note&gt;", "GRPO &amp; friends", "<td>+0.5</td>", "A good inn."]
        {
            assert!(page.contains(shown), "no `{shown}` in {page}");
        }
        assert!(page.find("What came of it") < page.find("Final figures"));
    }

    #[test]
    fn judges_that_pay_nothing_are_shown_against_the_pay() {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path());
        assert_eq!(run.against("reward", "rewards/lexicon/mean")[3], (4.0, 2.0));
        assert!(run.against("reward", "kl").is_empty());
        let page = render_after("demo", &[], &[run]).unwrap();
        assert!(page.contains("rewards&#x2f;lexicon&#x2f;mean against reward"), "{page}");
        assert!(!page.contains("rewards&#x2f;model&#x2f;mean against reward"));
    }
}
