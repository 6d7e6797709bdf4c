//! Lists: a table with titles, one template per row, JSON lines, or ids only.

use super::table;
use super::value::Value;
use crate::error::Error;
use crate::template::Template;

/// What kind of list `--format` asks for.
#[derive(Debug, Clone)]
enum Shape {
    Table(Template),
    Rows(Template),
    Json,
}

/// The layout of a list.
#[derive(Debug, Clone)]
pub struct Layout(Shape);

/// One row: the fields of its context in the order of their names, and answers to method calls.
#[derive(Debug, Default)]
pub struct Row {
    /// What `{{.Field}}` finds.
    pub fields: Vec<(&'static str, Value)>,
    /// What `{{.Label "key"}}` finds.
    pub labels: Vec<(String, Value)>,
}

impl Layout {
    /// Chooses the layout from `--format`, or `default` (a table's columns) without one.
    pub fn new(format: Option<&str>, default: &str) -> Result<Layout, Error> {
        let unescape = |text: &str| text.replace("\\t", "\t").replace("\\n", "\n");
        let shape = match format.unwrap_or("table") {
            "" | "table" => Shape::Table(parse(default)?),
            "json" => Shape::Json,
            "raw" => return Err(Error::plain("the raw format is not supported: use a template")),
            text => match text.strip_prefix("table ") {
                Some(columns) => Shape::Table(parse(&unescape(columns.trim()))?),
                None => Shape::Rows(parse(&unescape(text))?),
            },
        };
        Ok(Layout(shape))
    }

    /// Renders the rows; `titles` gives each field its column title.
    pub fn render(&self, titles: &[(&str, &str)], rows: &[Row]) -> Result<String, Error> {
        let value = |row: &Row| {
            Value::Map(row.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
        };
        let line = |template: &Template, row: &Row| {
            template
                .execute_with(&value(row), &|method, args| match (method, args) {
                    ("Label", [Value::String(key)]) => Some(
                        row.labels
                            .iter()
                            .find(|(name, _)| name == key)
                            .map_or(Value::from(""), |(_, value)| value.clone()),
                    ),
                    _ => None,
                })
                .map_err(|error| Error::plain(format!("failed to execute template: {error}")))
        };
        let mut lines = Vec::new();
        match &self.0 {
            Shape::Json => {
                let mut out = String::new();
                for row in rows {
                    out.push_str(&value(row).to_json());
                    out.push('\n');
                }
                return Ok(out);
            }
            Shape::Rows(template) => {
                let mut out = String::new();
                for row in rows {
                    out.push_str(&line(template, row)?);
                    out.push('\n');
                }
                return Ok(out);
            }
            Shape::Table(template) => {
                let titles =
                    titles.iter().map(|(name, title)| ((*name).to_owned(), Value::from(*title))).collect();
                lines.push(template.header(&Value::Map(titles))?);
                for row in rows {
                    lines.push(line(template, row)?);
                }
            }
        }
        Ok(table::align(&lines))
    }
}

/// Parses the template of a list, whose mistakes Docker words differently from those of an object.
fn parse(text: &str) -> Result<Template, Error> {
    Template::parse(text).map_err(|error| {
        let error = error.to_string();
        let error = error.strip_prefix("template parsing error: ").unwrap_or(&error);
        Error::plain(format!("failed to parse template: {error}"))
    })
}

/// Renders one object by `--format`.
pub fn object(format: &str, value: &Value) -> Result<String, Error> {
    match format {
        "json" => Ok(value.to_json()),
        text => Ok(Template::parse(text)?.execute(value)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: &[(&str, &str)] = &[("ID", "CONTAINER ID"), ("Names", "NAMES")];

    fn rows() -> Vec<Row> {
        vec![Row {
            fields: vec![("ID", "0123".into()), ("Names", "web".into())],
            labels: vec![("a".into(), "b".into())],
        }]
    }

    fn render(format: Option<&str>) -> String {
        Layout::new(format, "{{.ID}}\t{{.Names}}").unwrap().render(TITLES, &rows()).unwrap()
    }

    #[test]
    fn formats_choose_the_layout() {
        assert_eq!(render(None), "CONTAINER ID   NAMES\n0123           web\n");
        assert_eq!(render(Some("table {{.Names}}\\t{{.ID}}")), "NAMES     CONTAINER ID\nweb       0123\n");
        assert_eq!(render(Some("{{.ID}}: {{.Label \"a\"}}{{.Label \"x\"}}")), "0123: b\n");
        assert_eq!(render(Some("json")), "{\"ID\":\"0123\",\"Names\":\"web\"}\n");
        assert_eq!(render(Some("{{json .}}")), "{\"ID\":\"0123\",\"Names\":\"web\"}\n");
    }

    #[test]
    fn a_table_without_rows_has_its_titles() {
        let layout = Layout::new(None, "{{.ID}}\t{{.Names}}").unwrap();
        assert_eq!(layout.render(TITLES, &[]).unwrap(), "CONTAINER ID   NAMES\n");
    }
}
