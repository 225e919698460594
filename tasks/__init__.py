"""The tasks of the flows: one state per file, those of `market-data` in order.

    get_page_count    finds the latest snapshot, and whether the table already has it
    build_iterator    splits page numbers into chunks
    fetch_pages       downloads a chunk's pages concurrently
    aggregate         makes one record per item type
    store_records     writes the differences to the table

Other flows use `keep_region` and `run_shard` (universe) and `store_item` (player-count). `run` is what a run passes
between its states, `retries` how they are retried. Packages import only those to their right: `reporting`, `table`
(DynamoDB), `declared` (sources by declaration), `orders` (arithmetic), `esi` (HTTP), `catalogue` (names), `network`.
"""
