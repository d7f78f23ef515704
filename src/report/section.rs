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
