// The page: the stage shows and edits one case, the flow fetches and sends cases.
