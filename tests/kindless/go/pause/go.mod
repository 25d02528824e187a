module stoker.dev/kindless/pause

go 1.24
