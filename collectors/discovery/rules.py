"""The words by which names of columns tell what they hold, in English and some other languages of Europe.

A phrase matches where its words, written together, are one or several whole words of the name: `first name` is found in
`first_name`, `FirstName`, `firstname` and `customer_first_name`. A stem is found inside of a word, as German needs it.
German, French, Spanish, Italian, Portuguese and Dutch are covered.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from collectors.discovery.columns import Confidence


class Rule(Struct, frozen=True):
    """One rule: names like these, of these kinds of values, are of that category.

    `context` says what else has to be there: a table of `persons`, or beside it an `address`. `plain`: the phrase is
    all of the name, but for the name of the table.
    """

    category: str
    confidence: Confidence
    kinds: frozenset[str]
    phrases: frozenset[str]
    stems: tuple[str, ...] = ()
    context: str = ""
    plain: bool = False


def _rule(
    category: str,
    confidence: Confidence,
    kinds: str,
    phrases: str,
    stems: str = "",
    context: str = "",
    *,
    plain: bool = False,
) -> Rule:
    together = frozenset(phrase.strip().replace(" ", "") for phrase in phrases.split(","))
    return Rule(category, confidence, frozenset(kinds.split()), together, tuple(stems.split()), context, plain)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


RULES = (
    _rule(
        "credential",
        "high",
        "text bytes json uuid",
        "password, passwd, pwd, pass word, pass hash, pw hash, passwort, kennwort, contrasena, mot de passe, mdp,"
        " senha, wachtwoord, parola chiave, secret, api key, access token, refresh token, auth token, bearer token,"
        " session token, reset token, private key, secret key, client secret, otp, totp, session key, session data,"
        " recovery codes, security answer, id token, oauth token, api token, access key, pin code, secret answer",
        "password passwort kennwort passwd",
    ),
    _rule("credential", "medium", "text bytes uuid", "token, salt, pin, pass, clave, credentials, credential"),
    _rule(
        "email",
        "high",
        "text",
        "email, e mail, mail address, mailadresse, courriel, adresse mail, correo, correo electronico, email address",
        "email mailadress",
    ),
    _rule("email", "medium", "text", "mail, emails, mails"),
    _rule(
        "online",
        "high",
        "text inet number",
        "ip address, ip addr, ip adresse, client ip, remote addr, remote ip, login ip, mac address, device id, ip",
        "ipaddress",
    ),
    _rule("online", "medium", "text", "user agent, device token, device fingerprint, cookie"),
    _rule(
        "phone",
        "high",
        "text number",
        "phone, telephone, telefon, telefono, telefone, tel, mobile, cell phone, cell, handy, mobil, rufnummer, fax,"
        " gsm, movil, celular, cellulare, telefoon, telefax, mobile number, telnr, telno, handynr",
        "phone telefon rufnummer handynummer mobilnummer telefax",
    ),
    _rule(
        "birth",
        "high",
        "text date time number",
        "birth date, date of birth, dob, birthday, geb datum, gebdat, geburtsdatum, fecha nac, date naissance, ddn,"
        " geboortedatum, year of birth, place of birth, birth",
        "birth geburt naissance nacimiento nascita nascimento geboorte",
    ),
    _rule("birth", "medium", "date time", "death date, date of death, todesdatum, sterbedatum, deceased, died"),
    _rule("birth", "medium", "number text", "age, alter, edad, eta, idade", "", "persons", plain=True),
    _rule(
        "identity",
        "high",
        "text number",
        "ssn, social security, social security number, sin number, svnr, sv nummer, national id, nino, national"
        " insurance, national number, tax id, tax number, taxid, steuer id, steuernummer, steuernr, steuer nr, tin,"
        " nif, nie, dni, cpf, curp, codice fiscale, fiscal code, bsn, pesel, nir, passport, passport number,"
        " reisepass, ausweis, personalausweis, id card, identity card, driver license, drivers license, driver"
        " licence, driving licence, license number, fuehrerschein, aadhaar, identification number, identity number,"
        " numero securite sociale, num secu, cedula, identity document, identification id, visa no, permit no",
        "sozialversicherung steuerident ausweisn passport",
    ),
    _rule(
        "bank",
        "high",
        "text number",
        "iban, bank account, account number, acct number, account no, kontonummer, konto nr, kontonr, bankverbindung,"
        " routing number, sort code, numero cuenta, cuenta bancaria, numero compte, rib, conto corrente,"
        " rekeningnummer, acc number",
        "kontonummer bankkonto bankverbindung",
    ),
    _rule("bank", "medium", "text number", "bic, swift, blz, bankleitzahl, swift code, bank code, depositor"),
    _rule(
        "card",
        "high",
        "text number",
        "card number, credit card, cc number, ccnum, cc num, card no, kreditkarte, kartennummer, pan, tarjeta"
        " credito, numero tarjeta, carte bancaire, cvv, cvc, cvv2, card holder, cardholder, creditcard number",
        "creditcard kreditkarte",
    ),
    _rule("card", "medium", "text number date", "card expiry, card exp, exp month, exp year, cc exp, card expiration"),
    _rule(
        "person_name",
        "high",
        "text",
        "first name, last name, given name, family name, surname, forename, middle name, maiden name, full name,"
        " fname, lname, firstname, vorname, nachname, familienname, zuname, prenom, nom famille, nom de famille, nom"
        " naissance, apellido, apellidos, apellido1, apellido2, primer apellido, nombre completo, cognome, sobrenome,"
        " voornaam, achternaam, tussenvoegsel, imie, nazwisko, contact name, contact person, ansprechpartner, customer"
        " name, patient name, employee name, client name, recipient name, owner name, user full name, holder name,"
        " account holder, kontoinhaber, mother name, father name, mothers name, spouse name, emergency contact, given"
        " names, legal name, guest name, sender name, person name, student name, author name, member name, billing"
        " name, shipping name",
        "vorname nachname familienname kundenname patientenname",
    ),
    _rule(
        "person_name",
        "medium",
        "text",
        "name, nom, nombre, nome, naam, display name, name1, name2, name 1, name 2, complete name, bezeichnung name,"
        " prefix name, initials, given, family",
        "",
        "persons",
        plain=True,
    ),
    _rule(
        "account",
        "medium",
        "text",
        "username, user name, login, login name, benutzername, benutzer, nickname, nick name, screen name, handle,"
        " utilisateur, usuario, gebruikersnaam, nom utilisateur, user login",
    ),
    _rule(
        "address",
        "high",
        "text",
        "street, strasse, str, address, adresse, anschrift, direccion, indirizzo, endereco, adres, address line,"
        " address1, address2, address 1, address 2, addr, addr1, addr2, rue, calle, domicilio, house number,"
        " hausnummer, hausnr, domicile, straat, home address, street2, strasse hausnummer, house no",
        "strasse anschrift street",
    ),
    _rule(
        "address",
        "medium",
        "text number",
        "zip, zip code, zipcode, postal code, post code, postcode, plz, postleitzahl, code postal, codigo postal,"
        " cep, city, ort, stadt, ville, ciudad, citta, cidade, town, wohnort, localidad, plaats, city village",
        "postleitzahl wohnort",
        "address",
    ),
    _rule(
        "health",
        "high",
        "text number json bool date",
        "diagnosis, diagnose, diagnostic, diagnostico, icd, icd10, icd 10, icd code, icd10 code, blood type, blood"
        " group, blutgruppe, allergy, allergies, allergie, allergien, allergen, medication, medications, medikament,"
        " medikation, prescription, disability, behinderung, schwerbehindert, krankheit, krankenkasse,"
        " krankenversicherung, versichertennummer, versichertennr, health insurance, insurance number, medical record,"
        " medical history, mrn, symptoms, befund, anamnese, pregnant, hiv, smoker, cause of death, medical condition,"
        " illness, chronic, mutuelle, groupe sanguin, grupo sanguineo, sick leave, vaccination, therapy, therapie",
        "diagnos krankenkass krankenvers versicherten blutgruppe behinder allerg medikament",
    ),
    _rule("health", "medium", "text number", "weight, height, bmi, groesse, gewicht", "", "persons", plain=True),
    _rule(
        "special",
        "high",
        "text number bool",
        "religion, konfession, confession, ethnicity, ethnic group, race, ethnie, political, party membership,"
        " gewerkschaft, union member, sexual orientation, criminal record, nationality, staatsangehoerigkeit,"
        " nationalitaet, nationalite, nacionalidad, citizenship, konfessionsschluessel",
        "konfession staatsangehoer religion ethnic",
    ),
    _rule(
        "special",
        "medium",
        "text number bool",
        "gender, sex, geschlecht, sexe, sexo, sesso, geslacht, marital status, marital, familienstand, civil status,"
        " estado civil, situation familiale, children, kinder, anzahl kinder",
        "geschlecht familienstand",
    ),
    _rule(
        "income",
        "high",
        "number text",
        "salary, gehalt, lohn, wage, wages, income, salaire, sueldo, salario, stipendio, salaris, compensation, net"
        " pay, gross pay, base pay, bruttogehalt, nettogehalt, bruttolohn, monatsgehalt, stundenlohn, einkommen,"
        " revenu, pension",
        "salary gehalt bruttolohn stundenlohn einkommen",
    ),
    _rule(
        "location",
        "medium",
        "number place text",
        "latitude, longitude, lat, lng, lon, gps, coordinates, location, geo, geolocation, breitengrad, laengengrad",
        "",
        "persons",
    ),
    _rule("image", "medium", "bytes text", "photo, foto, picture, avatar, portrait, bild, image", "", "persons"),
    _rule("image", "high", "bytes text", "fingerprint, signature, unterschrift, biometric, face template", "biometri"),
    _rule(
        "free_text",
        "low",
        "text",
        "notes, note, comment, comments, remarks, remark, bemerkung, bemerkungen, notiz, notizen, kommentar, notas,"
        " commentaire, observaciones, bio, biography, about, description, message, body",
        "",
        "persons",
    ),
)

PERSONS = _words(
    "user users customer customers client clients person persons people patient patients employee employees staff"
    " member members contact contacts subscriber subscribers student students teacher teachers candidate"
    " candidates applicant applicants driver drivers guest guests passenger passengers profile profiles recipient"
    " recipients account accounts kunde kunden mitarbeiter patienten personal ansprechpartner benutzer mitglied"
    " mitglieder schueler lieferant personne personnes utilisateur utilisateurs employe employes salarie salaries"
    " adherent usuario usuarios cliente clientes empleado empleados paciente pacientes persona personas utente"
    " utenti dipendente dipendenti paziente klant klanten medewerker partner partners leads lead physician"
    " physicians doctor doctors nurse resident residents tenant_person beneficiary beneficiaries donor donors"
    " voter voters owner owners agent_person debtor debtors arzt aerzte individual relative relatives dependents"
    " dependent borrower borrowers insured attendee attendees participant participants"
)
"""Words in the name of a table whose rows are persons."""

ABOUT = _words(
    "verified confirmed sent count type types status state template enabled required valid expires expired expiry"
    " changed updated created at on attempts length policy format label subject opt pref preference preferences"
    " subscribed bounced provider id ids uid ref flag is has can use send allow needs num domain host port server"
    " validity category kind class level version notification notifications notify sort order index position"
    " prefix mask masked visible hidden public rule rules method error message code typ art anzahl datum zeit am"
    " geprueft bestaetigt tipo statut timezone tz verification confirmation priority size width color colour url"
    " link path mime"
)
"""Words that make a column say something about an address, a password or a name, rather than hold it."""

HOW: dict[str, Literal["token", "last4", "drop"]] = {"credential": "drop", "card": "last4"}
"""What a mask makes of the values of a category; of all others a token."""
