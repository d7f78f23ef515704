//! stub
/// a
pub(super) struct Answer {
    text: String,
}
impl Answer {
    pub fn new(text: &str) -> Self {
        Self { text: text.replace([',', '$', ' '], "") }
    }
    pub fn equals(&self, other: &Self) -> bool {
        match (self.text.parse::<f64>(), other.text.parse::<f64>()) {
            (Ok(a), Ok(b)) => a == b,
            _ => self.text == other.text,
        }
    }
}
