//! The notice beside a store.

use super::*;

#[tokio::test]
async fn a_notice_is_read_by_others_until_it_is_taken_down_and_goes_with_the_store() {
    let folder = Folder::new();
    let (worker, tool) = (folder.worker(), folder.tool());
    assert_eq!(tool.read_status().await.unwrap(), None);
    for text in ["first", "second"] {
        worker.write_status(text.to_owned()).await.unwrap();
        assert_eq!(tool.read_status().await.unwrap().as_deref(), Some(text));
    }
    worker.remove_status().await.unwrap();
    assert_eq!(tool.read_status().await.unwrap(), None);
    worker.write_status("left behind".to_owned()).await.unwrap();
    worker.close().await;
    tool.close().await;
    SqliteQueue::remove(&folder.store()).unwrap();
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0, "nothing is left");
}
