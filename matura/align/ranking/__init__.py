"""A person ranks answers: what is asked, the keys, the journal, the page. No module here needs torch."""
