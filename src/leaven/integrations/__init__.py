"""Systems beside Leaven that it speaks to; each is an extra, imported only where it is used."""
