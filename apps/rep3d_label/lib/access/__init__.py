"""Who may come in, and from where: roles of all addresses, keys, logins, and what other web pages may not do."""
