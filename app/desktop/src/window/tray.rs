//! The tray, where there is one.

use std::panic::AssertUnwindSafe;

use skiff_desktop::sight::Sight;
use skiff_desktop::tray::{Action, Line, menu};
use tauri::menu::{IsMenuItem, Menu, MenuItem, PredefinedMenuItem};
use tauri::tray::{TrayIcon, TrayIconBuilder};
use tauri::{AppHandle, Wry};

use super::{open, watch};

/// Makes the tray's icon. A desktop without a tray, or without the library for it, is no reason not to start.
pub fn make(app: &AppHandle) -> Option<TrayIcon> {
    let build = AssertUnwindSafe(|| {
        let builder =
            TrayIconBuilder::with_id("skiff").tooltip("Skiff").menu(&items(app, &Sight::default())?);
        let builder = match app.default_window_icon() {
            Some(icon) => builder.icon(icon.clone()),
            None => builder,
        };
        builder
            .on_menu_event(|app, event| {
                Action::of(event.id().as_ref()).into_iter().for_each(|action| act(app, action))
            })
            .build(app)
    });
    match std::panic::catch_unwind(build) {
        Ok(Ok(tray)) => Some(tray),
        Ok(Err(error)) => {
            tracing::info!(%error, "there is no tray");
            None
        }
        Err(_) => {
            tracing::info!("there is no library for the tray");
            None
        }
    }
}

/// Shows what is so now.
pub fn update(app: &AppHandle, tray: &TrayIcon, sight: &Sight) {
    let updated = items(app, sight).and_then(|menu| tray.set_menu(Some(menu)));
    if let Err(error) = updated {
        tracing::debug!(%error, "the tray can't be changed");
    }
}

fn items(app: &AppHandle, sight: &Sight) -> tauri::Result<Menu<Wry>> {
    let mut items: Vec<Box<dyn IsMenuItem<Wry>>> = Vec::new();
    for line in menu(sight) {
        items.push(match line {
            Line::Words(words) => Box::new(MenuItem::new(app, plain(&words), false, None::<&str>)?),
            Line::Action(words, action) => {
                Box::new(MenuItem::with_id(app, action.id(), plain(&words), true, None::<&str>)?)
            }
            Line::Rule => Box::new(PredefinedMenuItem::separator(app)?),
        });
    }
    let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
    Menu::with_items(app, &items)
}

/// An ampersand would mark a key.
fn plain(words: &str) -> String {
    words.replace('&', "&&")
}

fn act(app: &AppHandle, action: Action) {
    let shown = match action {
        Action::Open => open(app, None),
        Action::Container(name) => open(app, Some(&format!("/containers/{name}"))),
        Action::Start => {
            watch::machine(app, true);
            Ok(())
        }
        Action::Stop => {
            watch::machine(app, false);
            Ok(())
        }
        Action::Quit => {
            super::keep_frame(app);
            app.exit(0);
            Ok(())
        }
    };
    if let Err(error) = shown {
        tracing::error!(%error, "the window can't be shown");
    }
}
