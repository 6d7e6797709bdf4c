//! `top`.

use clap::Args;

use crate::api::Query;
use crate::command::{Context, name_in_path};
use crate::error::Error;
use crate::format::table;
use crate::format::value::Value;
use crate::terminal::print;

/// Display the running processes of a container
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff top CONTAINER [ps OPTIONS]")]
pub struct Top {
    /// Container and options of ps
    #[arg(required = true, trailing_var_arg = true, value_name = "CONTAINER", hide = true)]
    words: Vec<String>,
}

/// Carries `top` out.
pub async fn run(context: &Context, args: &Top) -> Result<(), Error> {
    let (container, options) = args.words.split_first().ok_or_else(|| Error::plain("no container given"))?;
    let query = Query::new().maybe("ps_args", (!options.is_empty()).then(|| options.join(" ")));
    let client = context.client().await?;
    let answer = client.get(&format!("/containers/{}/top", name_in_path(container)), &query).await?;
    let line = |cells: &[Value]| cells.iter().map(ToString::to_string).collect::<Vec<_>>().join("\t");
    let mut lines = vec![line(answer.list("Titles"))];
    for process in answer.list("Processes") {
        if let Value::List(cells) = process {
            lines.push(line(cells));
        }
    }
    print(&table::align_wide(&lines));
    Ok(())
}
