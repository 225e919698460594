"""The states of the flows, one a file; those of `market-data` in their order.

    get_page_count    which snapshot ESI offers, and whether the table has it already
    build_iterator    page numbers to chunks
    fetch_pages       a chunk's pages, side by side
    aggregate         one record per item type
    store_records     what differs from the table

`run_region` and `store_item` belong to other flows; `retries` says which failures Prefect retries. The packages below
know nothing of states, and each only of those after it: `reporting` (what a person sees), `table` (the DynamoDB
client), `orders` (arithmetic), `esi` (the HTTP client), `catalogue` (names) and `network`.
"""
